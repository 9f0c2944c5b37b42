/** Starts the page: tabs, language, and the part of the page that is looked at. */
import { language, setLanguage, translate } from './i18n.js';
import { mountChat } from './chat.js';

const tabs = ['chat', 'device'].map((name) => ({
  name, tab: document.getElementById(`tab-${name}`), panel: document.getElementById(name),
}));
const mounts = {
  chat: async (section) => mountChat(section),
  device: async (section) => (await import('./device.js')).mountDevice(section),
};
const mounted = new Set();

function select(name) {
  for (const { name: other, tab, panel } of tabs) {
    tab.setAttribute('aria-selected', String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
    panel.hidden = other !== name;
  }
  if (location.hash !== `#${name}`) history.replaceState(null, '', `#${name}`);
  if (mounted.has(name)) return;
  mounted.add(name);
  mounts[name](document.getElementById(name)).catch((error) => {
    mounted.delete(name);
    console.error(error);
  });
}

function onTabKey(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -tabs.length, End: tabs.length }[event.key];
  if (!step) return;
  event.preventDefault();
  const at = tabs.findIndex(({ tab }) => tab === document.activeElement);
  const next = tabs[Math.max(0, Math.min(tabs.length - 1, at + step))];
  next.tab.focus();
  select(next.name);
}

function showOtherLanguage() {
  const button = document.getElementById('language');
  const other = language() === 'zh' ? 'en' : 'zh';
  Object.assign(button, { textContent: other === 'zh' ? '中文' : 'English', lang: other });
}

for (const { name, tab } of tabs) tab.addEventListener('click', () => select(name));
document.querySelector('[role=tablist]').addEventListener('keydown', onTabKey);
document.getElementById('language').addEventListener('click', () => {
  setLanguage(language() === 'zh' ? 'en' : 'zh');
  showOtherLanguage();
});
addEventListener('hashchange', () => select(location.hash === '#device' ? 'device' : 'chat'));
translate(document);
showOtherLanguage();
select(location.hash === '#device' ? 'device' : 'chat');
