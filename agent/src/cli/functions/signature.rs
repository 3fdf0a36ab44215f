//! A function's parameters and results as a line of text, the same way for every language.

use crate::inspect::dwarf::types::{Shape, TypeNo, Types};
use crate::inspect::dwarf::{Described, Language, Parameter};

/// How deep types are spelled out, and how long a line may get.
const DEPTH_MAX: u8 = 6;
const LENGTH_MAX: usize = 400;

/// `name(count: int, text: char *) -> int`
pub(super) fn text(name: &str, described: &Described) -> String {
    let mut text = format!("{name}(");
    list(&mut text, &described.parameters, described);
    text.push(')');
    match described.results.as_slice() {
        [] => {}
        [result] if result.name.is_empty() => {
            text.push_str(" -> ");
            text.push_str(&type_text(&described.types, result.ty, described.language, 0));
        }
        results => {
            text.push_str(" -> (");
            list(&mut text, results, described);
            text.push(')');
        }
    }
    text
}

fn list(text: &mut String, parameters: &[Parameter], described: &Described) {
    for (number, parameter) in parameters.iter().enumerate() {
        if number > 0 {
            text.push_str(", ");
        }
        if text.len() > LENGTH_MAX {
            text.push('…');
            return;
        }
        if !parameter.name.is_empty() {
            text.push_str(&parameter.name);
            text.push_str(": ");
        }
        text.push_str(&type_text(&described.types, parameter.ty, described.language, 0));
    }
}

fn type_text(types: &Types, number: TypeNo, language: Language, depth: u8) -> String {
    let ty = types.get(number);
    let is_qualifier = matches!(ty.shape, Shape::Alias { qualifier: true, .. });
    if !ty.name.is_empty() && !is_qualifier {
        return ty.name.to_string();
    }
    if depth == DEPTH_MAX {
        return "…".to_owned();
    }
    let inner = |to| type_text(types, to, language, depth + 1);
    match &ty.shape {
        Shape::Pointer { to, .. } if matches!(language, Language::Go | Language::Rust) => {
            format!("*{}", inner(*to))
        }
        Shape::Pointer { to, reference: true } => format!("{} &", inner(*to)),
        Shape::Pointer { to, reference: false } => format!("{} *", inner(*to)),
        Shape::Alias { to, qualifier: true } => format!("const {}", inner(*to)),
        Shape::Alias { to, qualifier: false } => inner(*to),
        Shape::Array { of, count: Some(count) } => format!("{}[{count}]", inner(*of)),
        Shape::Array { of, count: None } => format!("{}[]", inner(*of)),
        Shape::Void => "void".to_owned(),
        Shape::Code => "function".to_owned(),
        Shape::Struct { .. } | Shape::Variants { .. } => "struct".to_owned(),
        Shape::Union { .. } => "union".to_owned(),
        Shape::Enum { .. } => "enum".to_owned(),
        _ => "?".to_owned(),
    }
}
