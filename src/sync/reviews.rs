//! What waits for a person, in the table.
