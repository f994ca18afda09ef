#!/usr/bin/env node
// Nodes that lose each other: what becomes of conferences that people opened on both sides, in numbers.
//
//   SHARDGATE_BIN=…       the binary under test (default: target/sim/shardgate)
//   SHARDGATECTL_BIN=…    its operator's side (default: target/sim/shardgatectl)
//   SHARDGATE_BIN_TEST_HOOKS=…  one whose entries can be overwritten
//   FAULTS_ROOMS=…        conferences of most cases (default: 300)
//   FAULTS_LONG=yes       also the cases that take a minute or more
//   node run.mjs [WORD]   only the cases whose name contains WORD
import { runCases } from '../runner.mjs';
import { CASES } from './cases.mjs';

await runCases(CASES, process.argv[2]);
