//! Values as both systems write them, in one form in which they are compared. Pure.
