//! What is looked at again in the next run, and what was refused, in the table.
