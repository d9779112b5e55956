//! Avro's logical types as texts.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::decode::{Fault, fault};
use super::schema::{Digits, Zone};

/// The longest decimal in bytes: some 2,400 digits.
const DECIMAL_BYTES_MAX: usize = 1_000;

type Text = Result<String, Box<Fault>>;

impl Digits {
    const fn count(self) -> u8 {
        match self {
            Self::Milli => 3,
            Self::Micro => 6,
            Self::Nano => 9,
        }
    }

    const fn per_second(self) -> i64 {
        10_i64.pow(self.count() as u32)
    }

    fn duration(self, count: i64) -> SignedDuration {
        let per = self.per_second();
        let nanos = count.rem_euclid(per) * (1_000_000_000 / per);
        // Below a second, so it fits.
        SignedDuration::new(count.div_euclid(per), nanos as i32)
    }
}

/// Days since 1970.
pub(super) fn date(days: i32) -> Text {
    const EPOCH: Date = jiff::civil::date(1970, 1, 1);
    let date = EPOCH.checked_add(SignedDuration::from_hours(i64::from(days) * 24));
    date.map(|date| date.to_string())
        .map_err(|_| fault(format!("{days} days since 1970, which is no date")))
}

/// Since midnight.
pub(super) fn time(count: i64, digits: Digits) -> Text {
    let day = 86_400 * digits.per_second();
    if !(0..day).contains(&count) {
        return Err(fault(format!("{count} where a time of day is below {day}")));
    }
    let time = Time::midnight().checked_add(digits.duration(count));
    let time = time.map_err(|_| fault(format!("{count}, which is no time of day")))?;
    Ok(clock(time, digits))
}

/// Since 1970.
pub(super) fn timestamp(count: i64, digits: Digits, zone: Zone) -> Text {
    let timestamp = Timestamp::UNIX_EPOCH.checked_add(digits.duration(count));
    let timestamp =
        timestamp.map_err(|_| fault(format!("{count}, which is no time that can be written")))?;
    let local: DateTime = TimeZone::UTC.to_datetime(timestamp);
    let mark = match zone {
        Zone::Utc => "Z",
        Zone::Local => "",
    };
    Ok(format!(
        "{}T{}{mark}",
        local.date(),
        clock(local.time(), digits)
    ))
}

fn clock(time: Time, digits: Digits) -> String {
    let fraction = format!("{:09}", time.subsec_nanosecond());
    let fraction = &fraction[..usize::from(digits.count())];
    format!(
        "{:02}:{:02}:{:02}.{fraction}",
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// A whole number in two's complement, most significant byte first, with its last `scale` digits behind
/// the point.
pub(super) fn decimal(bytes: &[u8], scale: u32) -> Text {
    if bytes.len() > DECIMAL_BYTES_MAX {
        return Err(fault(format!("a decimal of {} bytes", bytes.len())));
    }
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut digits = magnitude(bytes, negative);
    let scale = scale as usize;
    if digits.len() <= scale {
        digits = format!("{digits:0>width$}", width = scale + 1);
    }
    let sign = if negative { "-" } else { "" };
    let (whole, part) = digits.split_at(digits.len() - scale);
    Ok(if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{part}")
    })
}

fn magnitude(bytes: &[u8], negative: bool) -> String {
    /// The largest power of ten in 32 bits.
    const CHUNK: u64 = 1_000_000_000;
    let mut magnitude: Vec<u8> = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (flipped, over) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (flipped, over);
        }
        if carry {
            magnitude.insert(0, 1);
        }
    }
    // Chunks of nine digits, lowest first.
    let mut chunks: Vec<u32> = vec![0];
    for byte in magnitude {
        let mut carry = u64::from(byte);
        for chunk in &mut chunks {
            let value = u64::from(*chunk) * 256 + carry;
            *chunk = (value % CHUNK) as u32;
            carry = value / CHUNK;
        }
        if carry > 0 {
            chunks.push(carry as u32);
        }
    }
    let mut digits = chunks.last().map_or_else(String::new, u32::to_string);
    for chunk in chunks.iter().rev().skip(1) {
        digits.push_str(&format!("{chunk:09}"));
    }
    digits
}

/// 16 bytes.
pub(super) fn uuid(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups = [0..4, 4..6, 6..8, 8..10, 10..16];
    groups.map(|group| hex[group].concat()).join("-")
}

/// 12 bytes: three numbers, lowest byte first.
pub(super) fn duration(bytes: &[u8]) -> String {
    let number = |at: usize| {
        let four = &bytes[at..at + 4];
        u32::from_le_bytes([four[0], four[1], four[2], four[3]])
    };
    format!(
        "{{\"months\":{},\"days\":{},\"millis\":{}}}",
        number(0),
        number(4),
        number(8)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: Text) -> String {
        text.unwrap_or_else(|_| "fault".to_owned())
    }

    #[test]
    fn decimals_are_exact_at_both_ends() {
        let cases: [(&[u8], u32, &str); 9] = [
            (&[0x04, 0xd2], 2, "12.34"),
            (&[0xfb, 0x2e], 2, "-12.34"),
            (&[], 0, "0"),
            (&[0], 3, "0.000"),
            (&[0xff], 2, "-0.01"),
            (&[0x80], 0, "-128"),
            (&[0x80, 0x00], 1, "-3276.8"),
            (&[0x7f; 9], 0, "2351923699311548792703"),
            (
                &[0x0d, 0xe0, 0xb6, 0xb3, 0xa7, 0x64, 0x00, 0x00],
                18,
                "1.000000000000000000",
            ),
        ];
        for (bytes, scale, wanted) in cases {
            assert_eq!(of(decimal(bytes, scale)), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn times_before_1970_and_their_digits_are_right() {
        assert_eq!(of(date(0)), "1970-01-01");
        assert_eq!(of(date(-1)), "1969-12-31");
        assert_eq!(of(date(i32::MAX)), "fault");
        assert_eq!(of(time(45_000_250, Digits::Milli)), "12:30:00.250");
        assert_eq!(of(time(86_400_000_000, Digits::Micro)), "fault");
        assert_eq!(
            of(timestamp(-1, Digits::Micro, Zone::Utc)),
            "1969-12-31T23:59:59.999999Z"
        );
        assert_eq!(
            of(timestamp(1, Digits::Nano, Zone::Local)),
            "1970-01-01T00:00:00.000000001"
        );
        assert_eq!(of(timestamp(i64::MAX, Digits::Milli, Zone::Utc)), "fault");
    }
}
