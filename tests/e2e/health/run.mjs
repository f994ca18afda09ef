#!/usr/bin/env node
// Shards that fail, drain and return, in front of several real nodes: what conferences notice of it, in numbers.
//
//   SHARDGATE_BIN=…       the binary under test (default: target/sim/shardgate)
//   SHARDGATECTL_BIN=…    its operator's side (default: target/sim/shardgatectl)
//   node run.mjs [WORD]   only the cases whose name contains WORD
import { runCases } from '../runner.mjs';
import { CASES } from './cases.mjs';

await runCases(CASES, process.argv[2]);
