// The light or dark theme: the system's, or the one chosen in this browser.

const KEY = 'penstock-theme';
const THEMES = { system: 'System theme', light: 'Light theme', dark: 'Dark theme' };

function stored() {
  try {
    return THEMES[localStorage.getItem(KEY)] ? localStorage.getItem(KEY) : 'system';
  } catch {
    return 'system';
  }
}

/** Makes a select for the theme, and stores the choice. */
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
      // Without storage, the choice lasts until the page is closed.
    }
  });
}
