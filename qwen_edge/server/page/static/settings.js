/** The dialog with a conversation's settings. */
import { el, iconButton } from './dom.js';
import { t } from './i18n.js';
import { DEFAULTS, NUMBERS } from './conversation.js';

const JSON_FIELDS = { schema: isSchema, tools: isTools };

/**
 * @param {import('./conversation.js').Settings} settings
 * @param {string} [first] the field that has the focus
 * @returns {Promise<import('./conversation.js').Settings | null>} null if nothing was changed
 */
export function askSettings(settings, first = 'system') {
  return new Promise((resolve) => {
    const fields = makeFields({ ...DEFAULTS, ...settings });
    let result = null;
    const dialog = el('dialog', { class: 'sheet', 'aria-labelledby': 'settings-title' },
      el('form', { noValidate: true, on: { submit } },
        el('div', { class: 'sheet-head' }, el('h2', { id: 'settings-title', t: 'settings' }), iconButton('close', 'close', () => dialog.close())),
        row(fields.system, 'system'),
        el('div', { class: 'grid' }, row(fields.thinking, 'thinking'), ...Object.keys(NUMBERS).map((name) => row(fields[name], name))),
        row(fields.schema, 'schema'), row(fields.tools, 'tools'),
        el('div', { class: 'row end' },
          el('button', { type: 'button', class: 'plain', t: 'settings.reset', on: { click: reset } }),
          el('button', { type: 'submit', class: 'main', t: 'settings.save' }))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
    fields[first].focus();

    function submit(event) {
      event.preventDefault();
      const wrong = Object.values(fields).filter((field) => !check(field));
      if (wrong.length) return wrong[0].focus();
      result = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.value.trim()]));
      dialog.close();
    }
    function reset() {
      for (const [name, field] of Object.entries(fields)) {
        field.value = DEFAULTS[name];
        check(field);
      }
    }
  });
}

function makeFields(settings) {
  const words = [['', 'thinking.auto'], ['on', 'thinking.on'], ['off', 'thinking.off']];
  const fields = {
    system: el('textarea', { rows: 3, value: settings.system }),
    thinking: el('select', {}, ...words.map(([value, key]) => el('option', { value, t: key, selected: value === settings.thinking }))),
  };
  for (const [name, [min, max, step]] of Object.entries(NUMBERS)) {
    fields[name] = el('input', { type: 'number', min, max, step, value: settings[name], inputMode: step === 1 ? 'numeric' : 'decimal', hint: 'settings.own' });
  }
  for (const name of Object.keys(JSON_FIELDS)) {
    fields[name] = el('textarea', { rows: 4, value: settings[name], class: 'mono', spellcheck: false, placeholder: EXAMPLES[name] });
  }
  for (const [name, field] of Object.entries(fields)) {
    Object.assign(field, { id: `set-${name}`, name });
    field.setAttribute('aria-describedby', `set-${name}-problem`);
    // on leaving the field its problem would push the button away from under a mouse that is pressing it
    field.addEventListener('input', () => field.ariaInvalid === 'true' && check(field));
  }
  return fields;
}

const EXAMPLES = {
  schema: '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
  tools: '[{"type": "function", "function": {"name": "…", "parameters": {…}}}]',
};

function row(field, name) {
  return el('div', { class: 'field' }, el('label', { for: field.id, t: `settings.${name}` }), field,
    el('p', { class: 'field-problem', id: `${field.id}-problem`, role: 'alert' }));
}

/** Show what is wrong with a field. Returns whether it is right. */
function check(field) {
  const problem = problemOf(field);
  field.setAttribute('aria-invalid', String(problem !== ''));
  document.getElementById(`${field.id}-problem`).textContent = problem;
  return problem === '';
}

function problemOf(field) {
  if (field.type === 'number' && !field.checkValidity()) return t('settings.range', { min: field.min, max: field.max });
  const isRight = JSON_FIELDS[field.name];
  if (!isRight || !field.value.trim()) return '';
  try {
    return isRight(JSON.parse(field.value)) ? '' : t(`settings.${field.name}.wrong`);
  } catch (error) {
    return t('settings.json', { why: error.message });
  }
}

function isSchema(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function isTools(value) {
  return Array.isArray(value) && value.every((tool) => typeof (tool?.function?.name ?? tool?.name) === 'string');
}
