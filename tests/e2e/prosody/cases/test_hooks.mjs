// Controls: the check of `meet` can fail, and the binary that users get has no switch to make it fail.
import assert from 'node:assert/strict';
import { DidNotMeet } from '../meeting.mjs';
import { meetOverWebSocket } from './meet.mjs';

const SPLIT_MS = 3000;

export async function withoutStickinessNobodyMeets({ hooked, crowd }) {
  assert.ok(hooked, 'SHARDGATE_BIN_TEST_HOOKS must name a binary built with the feature test-hooks');
  const mesh = await hooked('stickiness=off');
  try {
    await assert.rejects(meetOverWebSocket({ mesh, crowd }, SPLIT_MS), (error) => {
      // Any other failure (a node that does not start, a client that cannot connect) proves nothing.
      if (!(error instanceof DidNotMeet)) throw error;
      assert.ok(error.roomsSplit > 0, `people were apart, but not on several shards: ${error.message}`);
      return true;
    });
    mesh.mustRun();
  } finally {
    await crowd.leave();
    await mesh.stop();
  }
}

export async function releaseBinaryLacksHooks({ mesh }) {
  const [node] = mesh.nodes;
  const { code, output } = await mesh.serveRefused(node, ['--test-hook', 'stickiness=off']);
  assert.notEqual(code, 0, 'the exit code of an unknown argument');
  assert.match(output, /unexpected argument '--test-hook'/, 'the message of an unknown argument');
}
