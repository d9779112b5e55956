//! The engine against a fake broker and a fake executor: deterministic parts, real threads.

mod alerts;
mod attempts;
mod broker;
mod executor;
mod flow;
mod forgetting;
mod gate;
mod harness;
mod hearing;
mod inbox;
mod inquiry;
mod joins;
mod judging;
mod queue;
mod replay;
mod sharing;
mod spill;
mod state;
mod swap;
mod trouble;
