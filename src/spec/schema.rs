//! The JSON schema (draft-07) of a spec, from the types that serde reads.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::Transform;
use serde_json::{Map, Value, json};

use super::Spec;

/// The schema of a spec file, as `schema/runjob.schema.json` holds it.
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = false;
    let mut schema = settings.into_generator().into_root_schema_for::<Spec>();
    schemars::transform::RecursiveTransform(plain).transform(&mut schema);
    schema.insert("title".into(), "runjob spec".into());
    schema.to_value()
}

/// Drops what editors show without use: number formats of Rust, and `null` for keys that may be left out (TOML has none).
fn plain(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("format");
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
            // draft-07 ignores what stands beside `$ref`, so a described reference goes through `allOf`.
            if object.contains_key("description") && one.contains_key("$ref") {
                object.insert("allOf".into(), json!([one]));
            } else {
                object.extend(one);
            }
        }
    }
}

/// Turns the `oneOf` of an externally tagged enum into one list of names and one object with every source as a
/// property, of which exactly one stands: editors complete and explain that form, and not a `oneOf` of many.
pub(super) fn one_object(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    let Some(Value::Array(variants)) = object.remove("oneOf") else { return };
    let mut names = Vec::new();
    let mut properties = Map::new();
    for variant in variants {
        let Value::Object(variant) = variant else { continue };
        if let Some(name) = variant.get("const") {
            names.push(name.clone());
        }
        if let Some(Value::Array(values)) = variant.get("enum") {
            names.extend(values.iter().cloned());
        }
        let Some(Value::Object(of)) = variant.get("properties") else { continue };
        for (name, property) in of {
            let mut property = property.clone();
            if let (Some(text), Value::Object(property)) = (variant.get("description"), &mut property)
                && !property.contains_key("description")
            {
                if let Some(reference) = property.remove("$ref") {
                    property.insert("allOf".into(), json!([{ "$ref": reference }]));
                }
                property.insert("description".into(), text.clone());
            }
            properties.insert(name.clone(), property);
        }
    }
    object.insert(
        "anyOf".into(),
        json!([
            { "type": "string", "enum": names },
            { "type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1, "maxProperties": 1 }
        ]),
    );
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;

    #[test]
    fn every_key_is_described() {
        let schema = schema();
        let mut missing = Vec::new();
        let mut stack = vec![(String::new(), &schema)];
        while let Some((path, value)) = stack.pop() {
            match value {
                Value::Object(object) => {
                    if let Some(Value::Object(properties)) = object.get("properties") {
                        for (name, property) in properties {
                            let backend = ["cpu", "opencl", "wgpu", "cuda", "default", "text"].contains(&name.as_str());
                            let named = backend || crate::tensor::Dtype::from_name(name).is_some();
                            if property.get("description").is_none() && property.get("$ref").is_none() && !named {
                                missing.push(format!("{path}.{name}"));
                            }
                        }
                    }
                    stack.extend(object.iter().map(|(k, v)| (format!("{path}/{k}"), v)));
                }
                Value::Array(items) => stack.extend(items.iter().map(|v| (path.clone(), v))),
                _ => {}
            }
        }
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn data_is_one_object() {
        let text = serde_json::to_string(&super::super::Data::json_schema(&mut SchemaSettings::draft07().into_generator())).unwrap();
        assert!(text.contains("minProperties"), "{text}");
        assert!(!text.contains("oneOf"), "{text}");
    }
}
