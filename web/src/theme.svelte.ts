/** Light, dark, or as the system says. Kept in this browser. */
export type Theme = 'system' | 'light' | 'dark';

const KEY = 'evermill-theme';
const ORDER: Theme[] = ['system', 'light', 'dark'];

function kept(): Theme {
  try {
    const word = localStorage.getItem(KEY);
    return ORDER.find((theme) => theme === word) ?? 'system';
  } catch {
    return 'system';
  }
}

export const theme = $state({ name: kept() });

export function applyTheme(): void {
  document.documentElement.dataset.theme = theme.name;
}

export function nextTheme(): void {
  theme.name = ORDER[(ORDER.indexOf(theme.name) + 1) % ORDER.length] ?? 'system';
  try {
    localStorage.setItem(KEY, theme.name);
  } catch {
    // A browser that keeps nothing shows it until it is closed.
  }
  applyTheme();
}
