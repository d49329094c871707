//! A process that lives: whatever happens to its log, its files and its clients.

mod files;
mod log;
mod operators;
mod secrets;
mod silent;
mod slow;
