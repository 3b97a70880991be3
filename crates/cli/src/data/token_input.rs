//! Batches of token sequences as models take them.

use anyhow::{Context, Result, bail, ensure};
use fpxint_runtime::{Element, Port, Value};
use ndarray::{ArrayD, IxDyn};

use super::tokens::Tokens;

/// What an input of a text model holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Ids,
    /// One for a token, zero for what fills a row up.
    Mask,
    Types,
}

const ROLES: [(&str, Role); 3] =
    [("input_ids", Role::Ids), ("attention_mask", Role::Mask), ("token_type_ids", Role::Types)];

/// How a model takes token sequences.
#[derive(Debug, Clone)]
pub(crate) struct TokenInput {
    inputs: Vec<(String, Role, Element)>,
    /// Sequences in a batch, where the model fixes it.
    pub batch: Option<usize>,
    /// Tokens in a sequence, where the model fixes it.
    pub length: Option<usize>,
}

impl TokenInput {
    /// The token inputs among a model's ports, which must have no others.
    pub(crate) fn of(ports: &[Port]) -> Result<Self> {
        let mut input = Self { inputs: Vec::new(), batch: None, length: None };
        for port in ports {
            let name = &port.name;
            let Some(&(_, role)) = ROLES.iter().find(|(known, _)| known == name) else {
                bail!("input `{name}` is not one of a text model: input_ids, attention_mask, token_type_ids");
            };
            let element = port.element.filter(|element| matches!(element, Element::I64 | Element::I32));
            let element = element.with_context(|| format!("input `{name}` is of neither int64 nor int32"))?;
            let [batch, length] = port.shape[..] else {
                bail!("input `{name}` has {} dimensions, not a batch of sequences", port.shape.len());
            };
            for (known, size) in [(&mut input.batch, batch), (&mut input.length, length)] {
                ensure!(size != Some(0), "input `{name}` is empty");
                ensure!(known.is_none() || size.is_none() || *known == size, "input `{name}` differs in size");
                *known = known.or(size);
            }
            input.inputs.push((name.clone(), role, element));
        }
        for (name, _) in &ROLES[..2] {
            ensure!(ports.iter().any(|port| port.name == *name), "the model has no input `{name}`");
        }
        Ok(input)
    }

    /// Sequences as the model's inputs, filled up to `length` tokens with `pad`, and where the model fixes the batch up to that
    /// by repeating the last.
    pub(crate) fn batch(&self, rows: &[&Tokens], length: usize, pad: u32) -> Result<Vec<(String, Value)>> {
        let last = *rows.last().context("a batch without sequences")?;
        let count = self.batch.unwrap_or(rows.len());
        let rows: Vec<&Tokens> = rows.iter().copied().chain(std::iter::repeat(last)).take(count).collect();
        let input = |(name, role, element): &(String, Role, Element)| {
            let mut values = Vec::with_capacity(count * length);
            for row in &rows {
                let fill = length - row.len();
                match role {
                    Role::Ids => values.extend(row.ids.iter().copied().chain(std::iter::repeat_n(pad, fill))),
                    Role::Mask => values.extend(row.ids.iter().map(|_| 1).chain(std::iter::repeat_n(0, fill))),
                    Role::Types => values.extend(row.types.iter().copied().chain(std::iter::repeat_n(0, fill))),
                }
            }
            let shape = IxDyn(&[count, length]);
            let value = if *element == Element::I32 {
                let values = values.into_iter().map(|v| i32::try_from(v).with_context(|| format!("token {v}")));
                Value::I32(ArrayD::from_shape_vec(shape, values.collect::<Result<_>>()?)?)
            } else {
                Value::I64(ArrayD::from_shape_vec(shape, values.into_iter().map(i64::from).collect())?)
            };
            Ok((name.clone(), value))
        };
        self.inputs.iter().map(input).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, element: Element, shape: &[Option<usize>]) -> Port {
        Port { name: name.to_owned(), element: Some(element), shape: shape.to_vec(), rows: None }
    }

    #[test]
    fn rows_are_filled_up_and_masked() {
        let ports = [
            port("attention_mask", Element::I32, &[Some(3), None]),
            port("input_ids", Element::I64, &[None, None]),
            port("token_type_ids", Element::I64, &[Some(3), None]),
        ];
        let input = TokenInput::of(&ports).unwrap();
        assert_eq!((input.batch, input.length), (Some(3), None));
        let rows = [Tokens { ids: vec![1, 5, 2], types: vec![0, 0, 1] }, Tokens { ids: vec![1, 2], types: vec![0, 1] }];
        let values = input.batch(&[&rows[0], &rows[1]], 4, 9).unwrap();
        let names: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["attention_mask", "input_ids", "token_type_ids"]);
        let array = |i: usize| values[i].1.to_f32().iter().map(|&v| v as u8).collect::<Vec<_>>();
        assert_eq!(values[0].1.shape(), [3, 4]);
        assert_eq!(array(0), [1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0]);
        assert_eq!(array(1), [1, 5, 2, 9, 1, 2, 9, 9, 1, 2, 9, 9]);
        assert_eq!(array(2), [0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn other_inputs_are_named() {
        let ids = || port("input_ids", Element::I64, &[None, Some(8)]);
        let message = |ports: &[Port]| TokenInput::of(ports).unwrap_err().to_string();
        assert_eq!(message(&[ids()]), "the model has no input `attention_mask`");
        let mask = |element, shape: &[Option<usize>]| port("attention_mask", element, shape);
        assert!(message(&[ids(), mask(Element::F32, &[None, None])]).contains("`attention_mask` is of neither"));
        assert!(message(&[ids(), mask(Element::I64, &[None])]).contains("`attention_mask` has 1 dimensions"));
        assert!(message(&[ids(), mask(Element::I64, &[None, Some(9)])]).contains("`attention_mask` differs in size"));
        let other = port("position_ids", Element::I64, &[None, None]);
        assert!(message(&[ids(), mask(Element::I64, &[None, None]), other]).contains("`position_ids`"));
    }
}
