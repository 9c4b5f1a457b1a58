//! The portal's own pages, built into the program.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, State};
use serde::Serialize;

use super::environment;

const FILES: [(&str, &str); 8] = [
    ("_fields.html", include_str!("../../templates/web/_fields.html")),
    ("base.html", include_str!("../../templates/web/base.html")),
    ("login.html", include_str!("../../templates/web/login.html")),
    ("activate.html", include_str!("../../templates/web/activate.html")),
    ("link.html", include_str!("../../templates/web/link.html")),
    ("gone.html", include_str!("../../templates/web/gone.html")),
    ("home.html", include_str!("../../templates/web/home.html")),
    ("error.html", include_str!("../../templates/web/error.html")),
];

const DESK: [(&str, &str); 9] = [
    ("_tables.html", include_str!("../../templates/desk/_tables.html")),
    ("base.html", include_str!("../../templates/desk/base.html")),
    ("login.html", include_str!("../../templates/desk/login.html")),
    ("problem.html", include_str!("../../templates/desk/problem.html")),
    ("board.html", include_str!("../../templates/desk/board.html")),
    ("upload.html", include_str!("../../templates/desk/upload.html")),
    ("customers.html", include_str!("../../templates/desk/customers.html")),
    ("customer.html", include_str!("../../templates/desk/customer.html")),
    ("view.html", include_str!("../../templates/desk/view.html")),
];

/// What the operators' page has beside [`STYLE`].
pub const DESK_STYLE: &str = include_str!("../../templates/desk/style.css");
pub const STYLE: &str = include_str!("../../templates/web/style.css");
pub const ICON: &str = include_str!("../../templates/web/favicon.svg");

/// Enough for a customer with a hundred thousand files on the page; ours has no loop without end.
const FUEL: u64 = 20_000_000;

/// The pages, read once.
pub struct Pages(Environment<'static>);

impl Pages {
    /// Those of customers.
    ///
    /// # Errors
    /// A page that does not read; the tests see to that.
    pub fn new() -> anyhow::Result<Self> {
        Self::read(&FILES)
    }

    /// Those of operators.
    ///
    /// # Errors
    /// A page that does not read; the tests see to that.
    pub fn of_operators() -> anyhow::Result<Self> {
        Self::read(&DESK)
    }

    fn read(files: &[(&'static str, &'static str)]) -> anyhow::Result<Self> {
        let mut environment = environment();
        environment.set_fuel(Some(FUEL));
        environment.add_function("t", in_language);
        for (name, source) in files.iter().copied() {
            environment.add_template(name, source)?;
        }
        Ok(Self(environment))
    }

    /// # Errors
    /// A page that needs what it was not given.
    pub fn render(&self, name: &str, values: impl Serialize) -> anyhow::Result<String> {
        Ok(self.0.get_template(name)?.render(Value::from(Serde(values)))?)
    }
}

/// `t("deutsch", "english")`: the one in the page's language.
fn in_language(state: &State<'_, '_>, german: String, english: String) -> Result<String, Error> {
    let is_german = state.lookup("de").is_some_and(|de| de.is_true());
    Ok(if is_german { german } else { english })
}
