// Every case, in the order of the run: the one that kills a shard comes behind those that need all of them.
import { firstJoinsAtOnce } from './first_joins.mjs';
import { healedCut } from './healed_cut.mjs';
import { meetOverBosh, meetOverBoth, meetOverWebSocket } from './meet.mjs';
import { killedShard } from './shard_killed.mjs';
import { silentTunnelHoldsItsRoom } from './silence.mjs';
import { lettersOfAnyCase, tenantsApart } from './tenants.mjs';
import { releaseBinaryLacksHooks, withoutStickinessNobodyMeets } from './test_hooks.mjs';

export const cases = {
  'websocket: everybody meets through three nodes': meetOverWebSocket,
  'bosh: everybody meets through three nodes': meetOverBosh,
  'websocket and bosh mixed: everybody meets': meetOverBoth,
  'first joins in the same moment: one shard per room': firstJoinsAtOnce,
  'tenants: the same room name is another conference': tenantsApart,
  'upper and lower case of ?room= are one conference': lettersOfAnyCase,
  'a silent websocket holds its room for three times expire, and when all have left it ends': silentTunnelHoldsItsRoom,
  'a cut that heals: the rooms of both sides become one, and only the fewer notice': healedCut,
  'a killed shard: its people meet again, others are undisturbed': killedShard,
  'control: without stickiness people do not meet': withoutStickinessNobodyMeets,
  'the release binary lacks the test hooks': releaseBinaryLacksHooks,
};
