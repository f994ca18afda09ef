// Child processes: each writes one log file, is stopped by its own pid, and none outlives the runner.
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';

const STOP_MS = 5000;
const running = new Set();

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Child {
  /** Starts `command` with its output appended to `log`; `stdin: 'pipe'` for a child that ends with its input. */
  constructor(name, command, args, log, { stdin = 'ignore', env } = {}) {
    this.name = name;
    this.log = log;
    const out = openSync(log, 'a');
    this.child = spawn(command, args, { stdio: [stdin, out, out], env });
    closeSync(out);
    running.add(this.child);
    this.ended = new Promise((resolve) => {
      this.child.once('error', (error) => resolve({ error }));
      this.child.once('exit', (code, signal) => resolve({ code, signal }));
    }).then((end) => {
      running.delete(this.child);
      this.end = end;
      return end;
    });
  }

  /** Throws, with the log's last lines, when the process is not running any more. */
  mustRun() {
    if (!this.end) return;
    const how = this.end.error?.message ?? `exit ${this.end.code ?? this.end.signal}`;
    throw new Error(`${this.name} ended by itself (${how}); its log's end:\n${tail(this.log)}`);
  }

  /** SIGKILL, and waits until it is gone: what a power cut looks like. */
  async kill() {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  /** SIGTERM, and SIGKILL when that was not enough. */
  async stop() {
    if (this.end) return;
    this.child.kill('SIGTERM');
    const bound = new AbortController();
    await Promise.race([this.ended, delay(STOP_MS, null, { signal: bound.signal })]);
    bound.abort();
    if (!this.end) await this.kill();
  }
}

/** Runs a command to its end; answers `{ code, output }` with stdout and stderr together. */
export async function run(command, args, { withinMs = 60_000, ...options } = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  running.add(child);
  const bound = setTimeout(() => child.kill('SIGKILL'), withinMs);
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (output += chunk));
  try {
    const [code, signal] = await once(child, 'close');
    return { code: code ?? signal, output };
  } finally {
    clearTimeout(bound);
    running.delete(child);
  }
}

/** Like `run`, and an exit code other than 0 is an error with the command's output. */
export async function mustRun(command, args, options) {
  const { code, output } = await run(command, args, options);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')}: exit ${code}\n${output}`);
  return output;
}

function tail(file) {
  return readFileSync(file, 'utf8').split('\n').slice(-15).join('\n');
}
