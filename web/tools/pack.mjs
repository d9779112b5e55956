// After `vite build`: writes each file's compressed forms beside it, refuses a page that has grown too large, and puts it in
// the place of the one before, whole: cargo may be building a binary with that at the same time.
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

/** Bytes of everything a browser loads, after gzip. */
const GZIP_BYTES_MAX = 250 * 1024;

const [dist, next, before] = ['dist', 'dist-next', 'dist-before'].map((name) => fileURLToPath(new URL(`../${name}`, import.meta.url)));

function files(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

let sum = 0;
for (const path of files(next).filter((path) => !/\.(gz|br)$/.test(path))) {
  const bytes = readFileSync(path);
  const gzip = gzipSync(bytes, { level: 9 });
  const brotli = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  });
  writeFileSync(`${path}.gz`, gzip);
  writeFileSync(`${path}.br`, brotli);
  sum += gzip.length;
}
const kib = (bytes) => `${(bytes / 1024).toFixed(1)} KiB`;
console.log(`the page: ${kib(sum)} after gzip, at most ${kib(GZIP_BYTES_MAX)}`);
if (sum > GZIP_BYTES_MAX) {
  console.error('the page has grown too large: load the new part only where it is shown, or do without it');
  process.exit(1);
}
rmSync(before, { recursive: true, force: true });
try {
  renameSync(dist, before);
} catch (fault) {
  if (fault.code !== 'ENOENT') throw fault;
}
renameSync(next, dist);
rmSync(before, { recursive: true, force: true });
