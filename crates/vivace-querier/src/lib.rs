//! Runs one query job: a trace by id, or one search over a block range or the ingesters
