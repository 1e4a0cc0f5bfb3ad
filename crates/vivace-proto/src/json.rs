//! What the proto3 JSON mapping asks for beside what its generator writes: `make proto` puts these into the generated code.

use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// A double. What is no number is written as a text.
pub(crate) struct Double(pub(crate) f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            value => serializer.serialize_f64(value),
        }
    }
}

/// A value of an enum: its name, or its number where this version has no name for it.
pub(crate) struct EnumOut<E>(pub(crate) Result<E, i32>);

impl<E: Serialize> Serialize for EnumOut<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(named) => named.serialize(serializer),
            Err(number) => serializer.serialize_i32(*number),
        }
    }
}

/// A value of an enum from its name or any number.
pub(crate) struct EnumIn<E> {
    pub(crate) number: i32,
    of: std::marker::PhantomData<E>,
}

impl<'de, E: Deserialize<'de> + Into<i32>> Deserialize<'de> for EnumIn<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber<E>(std::marker::PhantomData<E>);
        impl<'de, E: Deserialize<'de> + Into<i32>> Visitor<'de> for NameOrNumber<E> {
            type Value = i32;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a value of an enum, or a number")
            }

            fn visit_i64<R: Error>(self, number: i64) -> Result<i32, R> {
                i32::try_from(number).map_err(|_| R::invalid_value(Unexpected::Signed(number), &self))
            }

            fn visit_u64<R: Error>(self, number: u64) -> Result<i32, R> {
                i32::try_from(number).map_err(|_| R::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_str<R: Error>(self, name: &str) -> Result<i32, R> {
                E::deserialize(name.into_deserializer()).map(Into::into)
            }
        }
        let number = deserializer.deserialize_any(NameOrNumber::<E>(std::marker::PhantomData))?;
        Ok(Self { number, of: std::marker::PhantomData })
    }
}
