import type { components } from './schema';

type Shapes = components['schemas'];

export type RunLine = Shapes['RunLine'];
export type EngineLine = Shapes['EngineLine'];
export type RunDetail = Shapes['RunDetail'];
export type NodeView = Shapes['NodeView'];
export type TaskView = Shapes['TaskView'];
export type SourceView = Shapes['SourceView'];
export type PoolView = Shapes['PoolView'];
export type ParkedPage = Shapes['ParkedPage'];
export type ParkedView = Shapes['ParkedView'];
export type ParkedGroup = Shapes['ParkedGroup'];
export type ParkedFilter = Partial<Shapes['ParkedFilter']>;
export type PastView = Shapes['PastView'];
export type PastActivation = Shapes['PastActivation'];
export type PastTask = Shapes['PastTask'];
export type WaitPage = Shapes['WaitPage'];
export type WaitView = Shapes['WaitView'];
export type EventView = Shapes['EventView'];
export type Blob = Shapes['Blob'];
export type Alert = Shapes['Alert'];
export type Problem = Shapes['Problem'];
export type StreamEvents = Shapes['StreamEvents'];
export type Session = Shapes['Session'];
