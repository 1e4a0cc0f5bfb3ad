//! Chooses blocks, merges them, marks the inputs, deletes what retention allows
