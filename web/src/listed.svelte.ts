import { get, sentence } from './api/client';

/** A list that a page asks for once; whatever changes it is answered with it anew. */
export class Listed<T> {
  all = $state.raw<T[] | null>(null);
  fault = $state<string | null>(null);
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
    $effect(() => void this.#load());
  }

  async #load(): Promise<void> {
    try {
      this.all = (await get<T[]>(this.#path)).value;
      this.fault = null;
    } catch (cause) {
      this.fault = sentence(cause);
    }
  }
}
