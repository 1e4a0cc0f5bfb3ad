//! The metrics-generator by its gRPC door and what a receiver of remote writes gets.

mod client;
mod receiver;
mod remote_write;
mod running;
