// What the scripts are given, in types. The traits of each widget are in traits.d.ts.

/** The browser's side of a widget with the traits T: anywidget's model, or a page's stand-in. */
export interface Model<T> {
  get<K extends keyof T>(name: K): T[K];
  set<K extends keyof T>(name: K, value: T[K]): void;
  on(event: string, handler: Handler): void;
  off(event: string, handler: Handler): void;
  save_changes(): void;
  send(content: object, callbacks?: undefined, buffers?: ArrayBufferLike[]): void;
  /** Only where a kernel may be behind the model. */
  widget_manager?: unknown;
}

/** What is called when a value changes, or with a message of the kernel and its buffers. */
// biome-ignore lint/suspicious/noExplicitAny: a change brings other arguments than a message
export type Handler = (...args: any[]) => void;

/** What a widget renders into. */
export interface View<T> {
  model: Model<T>;
  el: HTMLElement;
}

/** The names of the traits in T whose values are of type V. */
export type NameOf<T, V> = { [K in keyof T]: T[K] extends V ? K : never }[keyof T] & string;

/** Any name of a trait in T. */
export type Name<T> = keyof T & string;

/** A constructor of typed arrays. */
export interface ArrayType<A> {
  new (buffer: ArrayBufferLike): A;
}

/** A tick of an axis: where it is, or where it is and what stands there. */
export type Tick = number | [number, string];

/** Numbers in a row, typed or not. */
export type Numbers = ArrayLike<number>;

/** One message of the kernel; `kind` is one of TELL. */
export interface Message {
  kind: string;
  // biome-ignore lint/suspicious/noExplicitAny: each kind has its own fields
  [field: string]: any;
}

/** Colors of the theme. */
export interface Theme {
  dark: boolean;
  ink: string;
  paper: string;
  faint: string;
  curves: readonly string[];
}
