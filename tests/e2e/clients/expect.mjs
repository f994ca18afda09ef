// What a client's output must say.

/** Fails with the output's end when `holds` is not true. */
export function must(holds, what, output = '') {
  if (!holds) throw new Error(`expected ${what}${output && `; the output ends:\n${String(output).slice(-1500)}`}`);
}

/** Fails when two values differ. */
export function equal(seen, wanted, what) {
  const [one, other] = [seen, wanted].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(`${what}: expected ${other}, got ${one}`);
}
