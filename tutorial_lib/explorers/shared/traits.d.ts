// Made by tools/build_wire.py from the widgets' classes: change it there.

export interface DenoiserExplorerTraits {
  alpha_bar: DataView;
  arrows: string;
  chosen: number;
  each: DataView;
  eps: DataView;
  eps_hat: DataView;
  floors: DataView;
  losses: DataView;
  model_field: DataView;
  noise: number;
  num_steps: number;
  oracle_field: DataView;
  place: number;
  reach: number;
  shape: number[];
  timesteps: number[];
  x0: DataView;
  x0_hat: DataView;
}

export interface EditingExplorerTraits {
  answers: number;
  area: number;
  chosen: number;
  class_names: string[];
  column: number;
  erases: boolean;
  images: DataView;
  label: number;
  mask: DataView;
  noise: number;
  percent: number;
  ready: DataView;
  row: number;
  shape: number[];
}

export interface EmbeddingExplorerTraits {
  dim: number;
  max_period: number;
  near: boolean;
  num_steps: number;
  t: number;
}

export interface FlowExplorerTraits {
  blurs: number[];
  edge: number;
  errors: number[];
  lines: DataView;
  means: DataView;
  moment: number;
  pairs: DataView;
  paths: string;
  real_share: number;
  shares: number[];
  starts: DataView;
  steps: number;
  straightness: number[];
  variances: DataView;
  weights: DataView;
}

export interface ForwardExplorerTraits {
  alpha_bar: DataView;
  eps: DataView;
  image: number;
  noise: number;
  schedule: string;
  schedule_names: string[];
  shape: number[];
  t: number;
  x0: DataView;
}

export interface GuidanceExplorerTraits {
  accuracy: DataView;
  chosen: number;
  class_names: string[];
  classes: number[];
  counts: number[];
  images: DataView;
  owners: number[];
  place: number;
  reads: DataView;
  real: DataView;
  scales: number[];
  shape: number[];
  spread: DataView;
}

export interface PlaygroundTraits {
  alpha_bar: DataView;
  cursor_x: number;
  cursor_y: number;
  drawn: DataView;
  noise: number;
  num_steps: number;
  oracle: boolean;
  particles: number;
  paths: boolean;
  seconds: number;
  shape: string;
  shape_counts: number[];
  shape_names: string[];
  shapes: DataView;
  t: number;
  walk: string;
  walk_names: string[];
}

export interface ReceptiveFieldExplorerTraits {
  fields: DataView;
  model_names: string[];
  pixel: number;
  shape: number[];
  x_t: DataView;
}

export interface ScheduleExplorerTraits {
  beta_end: number;
  beta_start: number;
  eps: DataView;
  family: string;
  num_steps: number;
  own: DataView;
  own_names: string[];
  shape: number[];
  t: number;
  x0: DataView;
}

export interface SolverExplorerTraits {
  edge: number;
  ends: DataView;
  evaluations: number;
  means: DataView;
  paths: DataView;
  sigma: DataView;
  spacing: string;
  spacings: string[];
  starts: DataView;
  timesteps: DataView;
  variances: DataView;
  weights: DataView;
}

export interface TrajectoryExplorerTraits {
  all_etas: number[];
  all_steps: number[];
  eta: number;
  num_steps: number;
  settled: DataView;
  shape: number[];
  steps: number;
  t: number;
  walks: { name: string; steps: number; eta: number; t: number[] }[];
  x0_hat: DataView;
  x_t: DataView;
}

export interface WordsExplorerTraits {
  chosen: number;
  draws: boolean;
  map_ends: number[];
  map_shape: number[];
  maps: DataView;
  peaks: DataView;
  picture_ends: number[];
  pictures: DataView;
  place: number;
  right: DataView;
  scale_place: number;
  scales: number[];
  seed_place: number;
  seeds: number[];
  sentences: string[];
  shape: number[];
  timesteps: number[];
  whole: DataView;
  word: number;
}
