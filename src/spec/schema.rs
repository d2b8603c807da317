//! The Rust types of a spec -> its JSON schema (draft-07), in the forms that editors complete, explain and check.
//!
//! Two language servers decide which forms those are (`tests/editors` asks both): a key has one schema, which holds its
//! description itself; names are one `enum`; alternatives that are tables are one table of which one key may stand.
//! Every type of the spec takes these forms here, whatever schemars made of it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Spec;

/// The schema of a spec file, as `schema/runjob.schema.json` holds it.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Spec>().to_value();
    each(&mut schema, &mut plain);
    each(&mut schema, &mut one_object);
    let definitions = schema.get("definitions").and_then(Value::as_object).cloned().unwrap_or_default();
    whole(&mut schema, &definitions, &mut Vec::new());
    each(&mut schema, &mut described);
    each(&mut schema, &mut numbers);
    keep_used(&mut schema);
    if let Value::Object(root) = &mut schema {
        root.insert("title".into(), "runjob spec".into());
    }
    schema
}

/// Applies `change` to every object of a schema, outermost first.
fn each(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|v| each(v, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| each(v, change)),
        _ => {}
    }
}

/// Drops what editors show without use: number formats of Rust, and `null` for keys that may be left out (TOML has none).
fn plain(object: &mut Map<String, Value>) {
    if object.get("format").is_some_and(Value::is_string) {
        object.remove("format");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            object.insert("type".into(), one);
        }
    }
    if let Some(Value::Array(any)) = object.get_mut("anyOf") {
        any.retain(|s| s.get("type") != Some(&json!("null")));
        if let [Value::Object(one)] = any.as_slice() {
            let one = one.clone();
            object.remove("anyOf");
            refer(object, one);
        }
    }
}

/// Puts `target` into an object; beside a description, a reference goes through `allOf` until [`whole`] resolves it.
fn refer(object: &mut Map<String, Value>, target: Map<String, Value>) {
    if object.contains_key("description") && target.contains_key("$ref") {
        object.insert("allOf".into(), json!([target]));
    } else {
        object.extend(target);
    }
}

/// Turns the `oneOf` of an enum into one list of names, one table with every variant as a key of which exactly one
/// stands, or either of them: servers complete and explain those, and offer a key of a `oneOf` once per variant.
fn one_object(object: &mut Map<String, Value>) {
    if !object.get("oneOf").is_some_and(Value::is_array) {
        return;
    }
    let Some(Value::Array(variants)) = object.remove("oneOf") else { return };
    let (mut names, mut told, mut properties) = (Vec::new(), String::new(), Map::new());
    for variant in &variants {
        let description = variant.get("description").and_then(Value::as_str);
        if let Some(name) = variant.get("const") {
            names.push(name.clone());
            if let (Some(name), Some(text)) = (name.as_str(), description) {
                told += &format!("\n- `{name}`: {text}");
            }
        }
        names.extend(variant.get("enum").and_then(Value::as_array).into_iter().flatten().cloned());
        for (name, of) in variant.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let mut property = Map::new();
            if let (Some(text), None) = (description, of.get("description")) {
                property.insert("description".into(), text.into());
            }
            refer(&mut property, of.as_object().cloned().unwrap_or_default());
            properties.insert(name.clone(), property.into());
        }
    }
    let mut words = json!({ "type": "string", "enum": names });
    let table = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1
    });
    if !told.is_empty() {
        words["description"] = told.trim_start().into();
    }
    let form = match (names.is_empty(), properties.is_empty()) {
        (false, false) => json!({ "anyOf": [words, table] }),
        (false, true) => words,
        (true, _) => table,
    };
    let Value::Object(form) = form else { return };
    let about = tell(object.get("description"), form.get("description"));
    object.extend(form);
    if let Some(about) = about {
        object.insert("description".into(), about);
    }
}

/// One description of two: what a key means here, then what its values are.
fn tell(here: Option<&Value>, values: Option<&Value>) -> Option<Value> {
    match (here.and_then(Value::as_str), values.and_then(Value::as_str)) {
        (Some(here), Some(values)) if !here.contains(values) => Some(format!("{here}\n\n{values}").into()),
        (Some(text), _) | (None, Some(text)) => Some(text.into()),
        (None, None) => None,
    }
}

/// Puts what an `allOf` of one holds or refers to in its place, behind the description that stands beside it: draft-07
/// ignores what stands beside `$ref`, and at `allOf` around one, one of the servers overflows its stack. A type within
/// itself stays a reference.
fn whole(value: &mut Value, definitions: &Map<String, Value>, within: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            let depth = within.len();
            if let Some(Value::Object(mut target)) = object.get("allOf").and_then(|all| all.get(0)).cloned() {
                object.remove("allOf");
                if let Some(name) = target.get("$ref").and_then(Value::as_str).map(String::from) {
                    let of = name.rsplit('/').next().and_then(|key| definitions.get(key)).and_then(Value::as_object);
                    match of {
                        Some(of) if !within.contains(&name) => {
                            target = of.clone();
                            within.push(name);
                        }
                        _ => object.clear(),
                    }
                }
                let about = tell(object.get("description"), target.get("description"));
                object.extend(target);
                object.extend(about.map(|text| ("description".to_string(), text)));
            }
            object.values_mut().for_each(|v| whole(v, definitions, within));
            within.truncate(depth);
        }
        Value::Array(items) => items.iter_mut().for_each(|v| whole(v, definitions, within)),
        _ => {}
    }
}

/// Gives one alternative of an `anyOf` its description: one server offers a key with the description of an alternative,
/// and shows all of them, one after the other, beside a key that stands there.
fn described(object: &mut Map<String, Value>) {
    let Some(here) = object.get("description").filter(|v| v.is_string()).cloned() else { return };
    let Some(alternatives) = object.get_mut("anyOf").and_then(Value::as_array_mut) else { return };
    if let Some(first) = alternatives.iter_mut().filter_map(Value::as_object_mut).find(|a| !a.contains_key("$ref"))
        && let Some(text) = tell(Some(&here), first.get("description"))
    {
        first.insert("description".into(), text);
    }
}

/// Spells out what a number may be: one server does not find the key of an integer under `number` alone, and the other
/// makes `null` of `inf` and `nan`. TOML cannot write a null.
fn numbers(object: &mut Map<String, Value>) {
    let Some(types) = object.get_mut("type") else { return };
    let mut all = types.as_array().cloned().unwrap_or_else(|| vec![types.clone()]);
    if all.contains(&json!("number")) {
        all.extend(["integer", "null"].map(Value::from).into_iter().filter(|t| !all.contains(t)).collect::<Vec<_>>());
        *types = all.into();
    }
}

/// Drops the definitions that nothing refers to.
fn keep_used(schema: &mut Value) {
    loop {
        let mut used = Vec::new();
        each(schema, &mut |object| used.extend(object.get("$ref").and_then(Value::as_str).map(String::from)));
        let Some(Value::Object(definitions)) = schema.get_mut("definitions") else { return };
        let before = definitions.len();
        definitions.retain(|name, _| used.contains(&format!("#/definitions/{name}")));
        if definitions.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described() {
        let (mut keys, mut missing) = (0, Vec::new());
        each(&mut schema(), &mut |object| {
            let Some(Value::Object(properties)) = object.get("properties") else { return };
            for (name, property) in properties {
                keys += 1;
                if !property.get("description").is_some_and(Value::is_string) {
                    missing.push(name.clone());
                }
            }
        });
        assert!(keys > 50, "{keys}");
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn no_form_is_used_that_editors_do_not_complete() {
        let mut found = Vec::new();
        each(&mut schema(), &mut |object| {
            for form in ["oneOf", "allOf", "not", "if", "dependencies", "patternProperties", "propertyNames", "pattern", "const"] {
                // A key of a spec may have the name of a form; it then holds a schema with a description.
                if object.get(form).is_some_and(|v| v.get("description").is_none()) {
                    found.push(format!("{form} in {}", Value::Object(object.clone())));
                }
            }
            if object.contains_key("$ref") && object.len() > 1 {
                found.push(format!("a key beside $ref, which is ignored: {}", Value::Object(object.clone())));
            }
        });
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn alternatives_become_one_table_and_one_list_of_names() {
        let mut schema = json!({ "description": "Contents.", "oneOf": [
            { "description": "All 0.", "type": "string", "const": "zeros" },
            { "description": "One number.", "type": "object", "properties": { "fill": { "$ref": "#/definitions/Num" } } },
        ] });
        each(&mut schema, &mut one_object);
        assert_eq!(schema["anyOf"][0], json!({ "type": "string", "enum": ["zeros"], "description": "- `zeros`: All 0." }));
        assert_eq!(schema["anyOf"][1]["maxProperties"], 1);
        let definitions = json!({ "Num": { "type": "number", "description": "A number." } });
        whole(&mut schema, definitions.as_object().unwrap(), &mut Vec::new());
        let fill = json!({ "description": "One number.\n\nA number.", "type": "number" });
        assert_eq!(schema["anyOf"][1]["properties"]["fill"], fill);
    }

    #[test]
    fn a_type_within_itself_stays_a_reference() {
        let list = json!({ "items": { "description": "Inner.", "allOf": [{ "$ref": "#/definitions/List" }] } });
        let mut schema = json!({ "description": "Outer.", "allOf": [{ "$ref": "#/definitions/List" }] });
        whole(&mut schema, json!({ "List": list }).as_object().unwrap(), &mut Vec::new());
        assert_eq!(schema, json!({ "description": "Outer.", "items": { "$ref": "#/definitions/List" } }));
    }
}
