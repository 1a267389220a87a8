// Light or dark: the system's choice, or this browser's.

const KEY = 'penstock-theme';
const THEMES = { system: 'System theme', light: 'Light theme', dark: 'Dark theme' };

function stored() {
  try {
    return THEMES[localStorage.getItem(KEY)] ? localStorage.getItem(KEY) : 'system';
  } catch {
    return 'system';
  }
}

/** Makes a select of the themes, and keeps what is chosen. */
export function themes(select) {
  const apply = (theme) => {
    if (theme === 'system') document.documentElement.removeAttribute('data-theme');
    else document.documentElement.setAttribute('data-theme', theme);
  };
  for (const [theme, words] of Object.entries(THEMES)) select.append(new Option(words, theme));
  select.value = stored();
  apply(select.value);
  select.addEventListener('change', () => {
    apply(select.value);
    try {
      localStorage.setItem(KEY, select.value);
    } catch {
      // It holds until the page is closed.
    }
  });
}
