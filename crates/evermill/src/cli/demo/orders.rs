//! Orders of a shop: who, and what. The same ones each time.

const CUSTOMERS: [&str; 12] = [
    "Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiro", "Inês", "Jamal",
    "Katja", "Linh",
];
/// What is sold, and in how many orders of a hundred it is.
const GOODS: [(&str, u64); 4] = [("tea", 45), ("coffee", 60), ("cake", 30), ("samovar", 8)];
/// Of one thing at most so many in an order.
const COUNT_MAX: u64 = 3;

/// An order: the customer, who is the message's key, and the message.
pub(super) struct Order {
    pub(super) customer: &'static str,
    pub(super) json: String,
}

/// Makes orders, numbered from 1.
pub(super) struct Orders {
    number: u64,
    dice: u64,
}

impl Orders {
    pub(super) const fn new() -> Self {
        Self {
            number: 0,
            dice: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub(super) fn next(&mut self) -> Order {
        self.number += 1;
        let customer = CUSTOMERS[self.roll(CUSTOMERS.len() as u64) as usize];
        let mut items = serde_json::Map::new();
        for (name, share) in GOODS {
            if self.roll(100) < share {
                items.insert(name.to_owned(), (1 + self.roll(COUNT_MAX)).into());
            }
        }
        if items.is_empty() {
            items.insert("tea".to_owned(), 1.into());
        }
        let order =
            serde_json::json!({"number": self.number, "customer": customer, "items": items});
        Order {
            customer,
            json: order.to_string(),
        }
    }

    /// Below `sides`. Marsaglia's xorshift: chance enough for a shop, and no dependency.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 16) % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_json_of_known_goods_and_numbered() {
        let mut orders = Orders::new();
        for number in 1..500 {
            let order: serde_json::Value = serde_json::from_str(&orders.next().json).unwrap();
            assert_eq!(order["number"], number);
            let items = order["items"].as_object().unwrap();
            assert!(!items.is_empty(), "{order}");
            assert!(
                items
                    .keys()
                    .all(|name| GOODS.iter().any(|(good, _)| good == name))
            );
        }
    }
}
