//! Benchmark of the operator with many jobs, on the embedded cluster.
//!
//! A round measures one subject with one number of jobs on a new cluster ([`rounds`]). [`audit`] counts the requests of
//! a controller, [`observe`] records when objects appear, [`process`] measures memory and processor time. [`figures`]
//! has what is measured, [`markdown`] renders it.

pub mod admin;
pub mod audit;
pub mod bench;
pub mod check;
pub mod children;
pub mod cli;
pub mod cluster;
pub mod command;
pub mod create;
pub mod document;
pub mod environment;
pub mod figures;
pub mod installation;
pub mod job;
pub mod markdown;
pub mod measure;
pub mod namespace;
pub mod observe;
pub mod operator;
pub mod process;
pub mod rounds;
pub mod run;
pub mod settle;
pub mod share;
pub mod simulation;
pub mod statistics;
pub mod table;
pub mod wait;
