//! The repository's tasks as a library, so that `bench` installs its rivals by the same code that installs the tests' clients.
//!
//! Deliberately absent: dependencies. This crate is compiled first by everybody who works here.

#![forbid(unsafe_code)]

pub mod install;
pub mod place;
pub mod shell;
pub mod sid;
pub mod tasks;
pub mod tidy;

/// What a task says when it cannot go on: a sentence for a person, with what to do.
pub type Outcome<T = ()> = Result<T, String>;
