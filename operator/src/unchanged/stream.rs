//! The same question of a typed object, asked while it is serialised, so that no JSON of it is made to be compared and dropped. Pure.

use serde::ser::{
    Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct,
};
use serde_json::{Error, Map, Number, Value};

use super::{covers, is_unset};

/// Whether an object, were it JSON, would cover `desired`.
pub fn says<K: Serialize>(observed: &K, desired: &Value) -> bool {
    // What cannot be serialised says nothing.
    observed.serialize(Against(desired)).unwrap_or(false)
}

/// A serializer whose result is whether what it was given covers a value.
#[derive(Clone, Copy)]
struct Against<'a>(&'a Value);

impl<'a> Against<'a> {
    fn scalar(self, same: impl FnOnce(&Value) -> bool) -> bool {
        self.0.is_null() || same(self.0)
    }

    fn number(self, have: impl Into<Number>) -> bool {
        let have = have.into();
        self.scalar(|want| want.as_number() == Some(&have))
    }

    fn items(self) -> Items<'a> {
        Items {
            wanted: self.0.as_array().map(Vec::as_slice),
            given: 0,
            covered: self.0.is_array() || self.0.is_null(),
        }
    }

    fn members(self) -> Members<'a> {
        let wanted = self.0.as_object();
        Members {
            wanted,
            missing: wanted.map_or(0, |wanted| wanted.values().filter(|value| !is_unset(value)).count()),
            covered: wanted.is_some() || self.0.is_null(),
            next: None,
        }
    }
}

/// A list, item by item.
struct Items<'a> {
    wanted: Option<&'a [Value]>,
    given: usize,
    covered: bool,
}

impl Items<'_> {
    fn take(&mut self, item: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        if let Some(wanted) = self.wanted.filter(|_| self.covered) {
            self.covered = match wanted.get(self.given) {
                Some(want) => item.serialize(Against(want))?,
                None => false,
            };
        }
        self.given += 1;
        Ok(())
    }

    fn is_covered(&self) -> bool {
        self.covered && self.wanted.is_none_or(|wanted| wanted.len() == self.given)
    }
}

/// An object, member by member.
struct Members<'a> {
    wanted: Option<&'a Map<String, Value>>,
    /// Members that are wanted with a value and did not come yet.
    missing: usize,
    covered: bool,
    /// What is wanted of the member whose value comes next.
    next: Option<&'a Value>,
}

impl<'a> Members<'a> {
    fn want(&self, key: &str) -> Option<&'a Value> {
        self.wanted.filter(|_| self.covered)?.get(key)
    }

    fn take(&mut self, want: Option<&'a Value>, have: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        if let Some(want) = want {
            self.missing -= usize::from(!is_unset(want));
            self.covered = have.serialize(Against(want))?;
        }
        Ok(())
    }

    fn is_covered(&self) -> bool {
        self.covered && self.missing == 0
    }
}

impl<'a> serde::Serializer for Against<'a> {
    type Ok = bool;
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Impossible<bool, Error>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Impossible<bool, Error>;

    fn serialize_bool(self, have: bool) -> Result<bool, Error> {
        Ok(self.scalar(|want| want.as_bool() == Some(have)))
    }

    fn serialize_i8(self, have: i8) -> Result<bool, Error> {
        Ok(self.number(have))
    }

    fn serialize_i16(self, have: i16) -> Result<bool, Error> {
        Ok(self.number(have))
    }

    fn serialize_i32(self, have: i32) -> Result<bool, Error> {
        Ok(self.number(have))
    }

    fn serialize_i64(self, have: i64) -> Result<bool, Error> {
        Ok(self.number(have))
    }

    fn serialize_u8(self, have: u8) -> Result<bool, Error> {
        Ok(self.number(have))
    }

    fn serialize_u16(self, have: u16) -> Result<bool, Error> {
        Ok(self.number(have))
    }

    fn serialize_u32(self, have: u32) -> Result<bool, Error> {
        Ok(self.number(have))
    }

    fn serialize_u64(self, have: u64) -> Result<bool, Error> {
        Ok(self.number(have))
    }

    fn serialize_f32(self, have: f32) -> Result<bool, Error> {
        Ok(covers(&Value::from(have), self.0))
    }

    fn serialize_f64(self, have: f64) -> Result<bool, Error> {
        Ok(covers(&Value::from(have), self.0))
    }

    fn serialize_char(self, have: char) -> Result<bool, Error> {
        self.serialize_str(have.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, have: &str) -> Result<bool, Error> {
        Ok(self.scalar(|want| want.as_str() == Some(have)))
    }

    fn serialize_bytes(self, have: &[u8]) -> Result<bool, Error> {
        Ok(covers(&Value::from(have), self.0))
    }

    fn serialize_none(self) -> Result<bool, Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, have: &T) -> Result<bool, Error> {
        have.serialize(self)
    }

    fn serialize_unit(self) -> Result<bool, Error> {
        Ok(self.0.is_null())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<bool, Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _name: &'static str, _place: u32, variant: &'static str) -> Result<bool, Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, have: &T) -> Result<bool, Error> {
        have.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _place: u32,
        variant: &'static str,
        have: &T,
    ) -> Result<bool, Error> {
        let mut members = self.members();
        members.take(members.want(variant), have)?;
        Ok(members.is_covered())
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(self.items())
    }

    fn serialize_tuple(self, _len: usize) -> Result<Items<'a>, Error> {
        Ok(self.items())
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Items<'a>, Error> {
        Ok(self.items())
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _place: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(unknown(variant))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Members<'a>, Error> {
        Ok(self.members())
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Members<'a>, Error> {
        Ok(self.members())
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _place: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(unknown(variant))
    }
}

/// No API type has such a member.
fn unknown(variant: &str) -> Error {
    serde::ser::Error::custom(format_args!("variant {variant} is no member of an API object"))
}

impl SerializeSeq for Items<'_> {
    type Ok = bool;
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        self.take(item)
    }

    fn end(self) -> Result<bool, Error> {
        Ok(self.is_covered())
    }
}

impl SerializeTuple for Items<'_> {
    type Ok = bool;
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        self.take(item)
    }

    fn end(self) -> Result<bool, Error> {
        Ok(self.is_covered())
    }
}

impl SerializeTupleStruct for Items<'_> {
    type Ok = bool;
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        self.take(item)
    }

    fn end(self) -> Result<bool, Error> {
        Ok(self.is_covered())
    }
}

impl SerializeMap for Members<'_> {
    type Ok = bool;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        let key = serde_json::to_value(key)?;
        self.next = key.as_str().and_then(|key| self.want(key));
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, have: &T) -> Result<(), Error> {
        let want = self.next.take();
        self.take(want, have)
    }

    fn end(self) -> Result<bool, Error> {
        Ok(self.is_covered())
    }
}

impl SerializeStruct for Members<'_> {
    type Ok = bool;
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, have: &T) -> Result<(), Error> {
        self.take(self.want(key), have)
    }

    fn end(self) -> Result<bool, Error> {
        Ok(self.is_covered())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Secret, Service};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// JSON of few shapes, so that two of them often have something in common.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            Just(json!({})),
            Just(json!([])),
            any::<bool>().prop_map(Value::from),
            (-1_i64..2).prop_map(Value::from),
            prop_oneof![Just("x"), Just("")].prop_map(Value::from),
            Just(json!(0.5)),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_object_says_what_its_json_covers(observed in values(), desired in values()) {
            prop_assert_eq!(says(&observed, &desired), covers(&observed, &desired));
            prop_assert_eq!(says(&observed, &observed), covers(&observed, &observed));
        }

        #[test]
        fn one_member_more_or_less_makes_the_same_difference(observed in values(), key in "[a-c]", member in values()) {
            let mut desired = observed.clone();
            if let Some(members) = desired.as_object_mut() {
                members.insert(key, member);
            }
            prop_assert_eq!(says(&observed, &desired), covers(&observed, &desired));
            prop_assert_eq!(says(&desired, &observed), covers(&desired, &observed));
        }
    }

    #[test]
    fn typed_objects_say_what_their_json_covers() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "s", "labels": {"a": "1"}, "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}], "clusterIP": "10.0.0.1"},
        }))
        .expect("a Service");
        let mut desired = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s", "labels": {"a": "1"}, "annotations": {}},
            "spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}], "selector": null},
        });
        assert!(says(&service, &desired));
        desired["spec"]["ports"][1]["targetPort"] = json!(8081);
        assert!(!says(&service, &desired));
        let secret: Secret = serde_json::from_value(json!({"data": {"k": "AAEC"}})).expect("a Secret");
        assert!(says(&secret, &json!({"data": {"k": "AAEC"}})));
        assert!(!says(&secret, &json!({"data": {"k": "AAED"}})));
    }
}
