// testssl.sh, offline, told of our CA: no finding above LOW.
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../process.mjs';
import { must } from './expect.mjs';
import { NAME } from './site.mjs';

const WITHIN_MS = 600_000;
const ACCEPTED = new Set(['OK', 'INFO', 'LOW']);

/** What says nothing about the server, by id, each with its reason. */
const NOT_OURS = {
  engine_problem: 'about the openssl of this machine, which has no GOST',
  sessionresumption_ticket:
    'testssl.sh 3.0 ends its TLS 1.3 connection before the ticket comes, and cannot tell; the openssl cases above resume',
};

export const cases = { 'testssl: no finding above LOW': noFinding };

async function noFinding(site) {
  const json = join(site.logs, 'clients-testssl.json');
  rmSync(json, { force: true });
  const { code, output } = await run(
    'testssl',
    [
      ...['--quiet', '--color', '0', '--warnings', 'off', '--nodns', 'none', '--ip', site.ip, '--add-ca', site.ca],
      ...['--jsonfile', json, `https://${NAME}:${site.port}/`],
    ],
    { withinMs: WITHIN_MS, env: { ...process.env, TERM: 'dumb' } },
  );
  const findings = JSON.parse(readFileSync(json, 'utf8'));
  must(findings.length > 100, `a whole run, not ${findings.length} findings (status ${code})`, output);
  const above = findings.filter(({ id, severity }) => !ACCEPTED.has(severity) && !(id in NOT_OURS));
  must(above.length === 0, `no finding above LOW: ${above.map(({ id, severity, finding }) => `${severity} ${id}: ${finding}`).join('; ')}`);
  const low = findings.filter(({ severity }) => severity === 'LOW').map(({ id }) => id);
  const excused = findings.filter(({ id, severity }) => !ACCEPTED.has(severity) && id in NOT_OURS);
  console.log(`# testssl: ${findings.length} findings; LOW: ${low.join(', ') || 'none'}`);
  for (const { id } of excused) console.log(`# testssl: ${id} does not count: ${NOT_OURS[id]}`);
}
