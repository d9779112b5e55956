import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';
import { licences } from './tools/licences.mjs';

// `npm run dev` shows the engine that listens here.
const engine = process.env.EVERMILL_URL ?? 'http://127.0.0.1:4700';

export default defineConfig({
  plugins: [svelte(), licences()],
  // Relative, so that the page works under any path of a reverse proxy.
  base: './',
  build: {
    target: 'es2022',
    // `tools/pack.mjs` moves it to where cargo looks.
    outDir: 'dist-next',
    modulePreload: { polyfill: false },
    // Nothing inline: the page forbids itself `data:` but for images.
    assetsInlineLimit: 0,
  },
  server: {
    host: '127.0.0.1',
    proxy: { '/api': { target: engine, changeOrigin: true }, '/hooks': { target: engine, changeOrigin: true } },
  },
});
