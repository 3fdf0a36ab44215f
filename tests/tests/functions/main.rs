//! Functions of running programs are probed, and the programs do not notice: what they print, how they
//! end and what they count is the same with and without; and every call that they count has its span.

mod brief;
mod exceptions;
mod exits;
mod fates;
mod generated;
mod hazards;
mod lines;
mod numbers;
mod places;
mod planned;
mod real;
mod scene;
mod stacks;
mod strain;
