/** The conversations, kept in this browser (IndexedDB). */

/** Where the browser keeps nothing, such as in some private windows, conversations live as long as the page. */
export class Store {
  #database;

  /** @param {IDBDatabase | null} database */
  constructor(database) {
    this.#database = database;
  }

  /** @returns {boolean} whether conversations survive a reload */
  get lasting() {
    return this.#database !== null;
  }

  /** @returns {Promise<Store>} */
  static async open() {
    try {
      const opening = indexedDB.open('qwen-edge', 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore('conversations', { keyPath: 'id' });
      return new Store(await settled(opening));
    } catch {
      return new Store(null);
    }
  }

  /** @returns {Promise<import('./conversation.js').Conversation[]>} the newest first */
  async all() {
    if (!this.#database) return [];
    const found = await settled(this.#transaction('readonly').getAll());
    return found.sort((one, other) => other.updated - one.updated);
  }

  /** @param {import('./conversation.js').Conversation} conversation */
  async put(conversation) {
    if (this.#database) await settled(this.#transaction('readwrite').put(conversation));
  }

  /** @param {string} id */
  async remove(id) {
    if (this.#database) await settled(this.#transaction('readwrite').delete(id));
  }

  #transaction(mode) {
    return this.#database.transaction('conversations', mode).objectStore('conversations');
  }
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
