// What others wrote and the page carries: refuses a licence that nobody has agreed to, and puts the texts beside the page,
// since most of them ask for that. `cargo xtask sbom` reads the first line of each.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** As in `deny.toml`: permissive only. A new one is a decision, made here. */
const ALLOWED = ['0BSD', 'Apache-2.0', 'BSD-3-Clause', 'ISC', 'MIT'];

/** The folder of the package that a module is of; none for our own. */
export function packageOf(id) {
  const path = id.replace(/^\0/, '').split('?')[0];
  if (!path.includes('/node_modules/')) return null;
  let folder = dirname(path);
  // A package may hold further files of this name, without a version.
  while (!existsSync(join(folder, 'package.json')) || !read(folder).version) {
    folder = dirname(folder);
    if (folder.endsWith('node_modules')) throw new Error(`${path} belongs to no package`);
  }
  return folder;
}

function read(folder) {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
}

/** Name, version and licence of a package, and the text of the licence. */
export function told(folder) {
  const { name, version, license } = read(folder);
  if (!ALLOWED.includes(license)) throw new Error(`${name} ${version}: the licence ${license} is none of ${ALLOWED.join(', ')} (web/tools/licences.mjs)`);
  const file = readdirSync(folder).find((name) => /^(licen[cs]e|copying)/i.test(name));
  // Its text is said by its name then, and by nobody but the standard.
  const text = file ? readFileSync(join(folder, file), 'utf8').trim() : `(${license}; the package has no text of its own)`;
  return `== ${name} ${version}, ${license} ==\n\n${text}\n`;
}

/** A plugin of vite: `licences.txt`, of the packages whose code is in the page. */
export function licences() {
  return {
    name: 'licences',
    generateBundle(_, bundle) {
      const folders = new Set();
      for (const chunk of Object.values(bundle)) {
        for (const [id, { renderedLength }] of Object.entries(chunk.modules ?? {})) {
          const folder = renderedLength > 0 ? packageOf(id) : null;
          if (folder) folders.add(folder);
        }
      }
      const source = [...folders].map(told).sort().join('\n');
      this.emitFile({ type: 'asset', fileName: 'licences.txt', source });
    },
  };
}
