// Made by tools/build_wire.py from wire.py: change it there.

export const SMALLEST_ALPHA_BAR = 1e-60;
export const GRAYS_PER_UNIT = 127.5;
export const EPS_SCALE = 4096;
export const INT16_MIN = -32768;
export const INT16_MAX = 32767;
export const ALL = -1;
export const TITLES = Object.freeze({
  denoiser: "Denoiser explorer",
  editing: "Editing explorer",
  embedding: "Embedding explorer",
  flows: "Flow explorer",
  forward: "Forward explorer",
  guidance: "Guidance explorer",
  playground: "Playground",
  receptive: "Receptive-field explorer",
  schedule: "Schedule explorer",
  solvers: "Solver explorer",
  trajectory: "Trajectory explorer",
  words: "Words explorer",
});
export const EPS_RANGE = 4;
export const EPS_SHOWN = 3;
export const ARROWS = Object.freeze({
  BOTH: "both",
  MODEL: "model",
  ORACLE: "oracle",
  ERROR: "error",
});
export const PAINTED = -1;
export const AREAS = Object.freeze(["lower half", "right half", "middle", "everything"]);
export const READY = 3;
export const LEAST_STRENGTH = 5;
export const DIM_MIN = 4;
export const DIM_MAX = 128;
export const PERIOD_MIN = 10;
export const PERIOD_MAX = 100000;
export const FLOW_PATHS = Object.freeze({
  straight: "straight lines",
  learned: "learned paths",
  reflowed: "reflowed paths",
});
export const FLOW_STEPS = Object.freeze([1, 2, 4, 8, 32]);
export const MANY_STEPS = 64;
export const MOMENTS = 200;
export const INFLUENCE_DECADES = 3;
export const INFLUENCE_LEVELS = 254;
export const FAMILIES = Object.freeze(["linear", "quadratic", "cosine"]);
export const STEPS_MIN = 10;
export const STEPS_MAX = 2000;
export const BETA_MIN = 1e-5;
export const BETA_MAX = 0.5;
export const COSINE_OFFSET = 0.008;
export const COSINE_MAX_BETA = 0.999;
export const SOLVERS = Object.freeze({
  euler: "Euler",
  heun: "Heun",
  dpm_solver: "DPM-Solver++",
});
export const EVALUATIONS_MIN = 2;
export const EVALUATIONS_MAX = 64;
export const DDPM = "DDPM";
export const DDIM = "DDIM";
export const MAP_LEVELS = 31;
export const PLANE_EDGE = 3;
export const NEAR = 0.15;
export const POINTS_MIN = 2;
export const POINTS_MAX = 600;
export const SECONDS = Object.freeze([2, 5, 10, 30]);
export const WHO = Object.freeze({
  NETWORK: "network",
  ORACLE: "oracle",
});
export const ASK = Object.freeze({
  HELLO: "hello",
  BYE: "bye",
  NOISE: "noise",
  TRAIN: "train",
  WALK: "walk",
  STOP: "stop",
  FILL: "fill",
  DRAW: "draw",
});
export const TELL = Object.freeze({
  HEARD: "heard",
  REFUSED: "refused",
  FAILED: "failed",
  STATE: "state",
  STARTED: "started",
  PROGRESS: "progress",
  TRAINED: "trained",
  WALKING: "walking",
  WALKED: "walked",
  IDLE: "idle",
  FILLING: "filling",
  FILLED: "filled",
  DRAWN: "drawn",
});
