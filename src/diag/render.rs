//! Prints diagnostics against the source text, as rustc does.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};

use super::{Diagnostic, Part, Severity, Source};

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    Plain,
    /// With terminal colours.
    Coloured,
}

/// The text of one diagnostic: message, file, line, column, the source line with carets, the mend.
pub fn render(source: &Source, diagnostic: &Diagnostic, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    }
    .decor_style(DecorStyle::Ascii);
    let span = source.span(&diagnostic.at);
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut primary = AnnotationKind::Primary.span(span.clone());
    if let Some(label) = &diagnostic.label {
        primary = primary.label(label.as_str());
    }
    let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str()).annotation(primary);
    for (place, label) in &diagnostic.also {
        snippet = snippet.annotation(AnnotationKind::Context.span(source.span(place)).label(label.as_str()));
    }
    let mut group = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code).element(snippet);
    for help in &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let mut groups: Vec<Group<'_>> = vec![group];
    if let Some(fix) = &diagnostic.fix {
        let replacement = match diagnostic.at.part {
            Part::Value if source.text[span.clone()].starts_with(['"', '\'']) => format!("\"{fix}\""),
            _ => fix.clone(),
        };
        groups.push(
            Level::HELP
                .secondary_title("write it so")
                .element(Snippet::source(source.text.as_str()).path(source.name.as_str()).patch(Patch::new(span, replacement))),
        );
    }
    renderer.render(&groups)
}
