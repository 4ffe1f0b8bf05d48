//! Packing against a packer of single elements, for every small case; large ones by arithmetic.
#![allow(clippy::unwrap_used)]

use tilewright_compression::bucket::{Bucket, Buckets, Piece};
use tilewright_compression::{CompressionError, LONGEST};

/// One element of one tensor.
type Place = (usize, u64);

/// Elements put into boxes one by one; what must stay together is looked ahead for.
fn brute_force(lengths: &[u64], limit: u64, compress: impl Fn(usize) -> bool) -> Vec<(bool, Vec<Place>)> {
    let mut boxes: Vec<(bool, Vec<Place>)> = Vec::new();
    for (tensor, len) in lengths.iter().copied().enumerate() {
        for element in 0..len {
            let kind = compress(tensor);
            let first_of_piece = element % limit == 0;
            let rest_of_piece = (element..len).take(limit as usize).count() as u64;
            let open = boxes.iter().rposition(|(other, _)| *other == kind);
            let fits = open.is_some_and(|open| boxes[open].1.len() as u64 + rest_of_piece <= limit);
            if first_of_piece && !fits {
                boxes.push((kind, Vec::new()));
            }
            let open = boxes.iter().rposition(|(other, _)| *other == kind).unwrap();
            boxes[open].1.push((tensor, element));
        }
    }
    boxes
}

fn spelled_out(bucket: &Bucket) -> (bool, Vec<Place>) {
    let elements: Vec<Place> = bucket
        .places()
        .flat_map(|(place, piece)| {
            assert_eq!(place.end - place.start, piece.len);
            assert!(piece.len > 0);
            (piece.start..piece.start + piece.len).map(move |element| (piece.tensor, element))
        })
        .collect();
    assert_eq!(bucket.len, elements.len() as u64);
    (bucket.compressed, elements)
}

#[test]
fn every_small_case() {
    let mut cases = 0;
    for tensors in 0..=4_u32 {
        for code in 0..5_u64.pow(tensors) {
            let lengths: Vec<u64> = (0..tensors).map(|tensor| code / 5_u64.pow(tensor) % 5).collect();
            for limit in 1..=6 {
                for kinds in 0..1_u32 << tensors {
                    let compress = |tensor: usize| kinds >> tensor & 1 == 1;
                    let buckets = Buckets::pack(&lengths, limit, |tensor, len| {
                        assert_eq!(len, lengths[tensor]);
                        compress(tensor)
                    })
                    .unwrap();
                    let packed: Vec<_> = buckets.list().iter().map(spelled_out).collect();
                    assert_eq!(packed, brute_force(&lengths, limit, compress), "{lengths:?} limit {limit} {kinds:b}");
                    assert_eq!(buckets.elements(), lengths.iter().sum());
                    assert_eq!(buckets.longest(), packed.iter().map(|(_, b)| b.len() as u64).max().unwrap_or(0));
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, (1..=4).fold(1, |sum, t| sum + 10_i32.pow(t)) * 6);
}

/// A tensor that 32-bit indices cannot reach is cut, and no sum on the way wraps.
#[test]
fn beyond_32_bits() {
    let longest = LONGEST as u64;
    let huge = (1 << 40) + 5;
    let buckets = Buckets::pack(&[3, huge, 4], longest, |_, _| true).unwrap();
    let full = huge / longest;
    assert_eq!(buckets.list().len() as u64, 1 + full + 1);
    let pieces: Vec<Piece> = buckets.list().iter().flat_map(|bucket| bucket.pieces.clone()).collect();
    for (i, piece) in pieces[1..=full as usize].iter().enumerate() {
        assert_eq!(*piece, Piece { tensor: 1, start: i as u64 * longest, len: longest });
    }
    let last = buckets.list().last().unwrap();
    let rest = Piece { tensor: 1, start: full * longest, len: huge - full * longest };
    assert_eq!(last.pieces, [rest, Piece { tensor: 2, start: 0, len: 4 }]);
    assert_eq!(buckets.elements(), huge + 7);
    assert_eq!(buckets.longest(), longest);

    // Two tensors whose lengths wrap 32 bits when added do not share a bucket.
    let buckets = Buckets::pack(&[longest, 1], longest, |_, _| true).unwrap();
    assert_eq!(buckets.list().len(), 2);
}

#[test]
fn what_cannot_be_packed() {
    let field = |result: Result<Buckets, CompressionError>| match result {
        Err(CompressionError::Spec { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Buckets::pack(&[1], 0, |_, _| true)), "bucket size");
    assert_eq!(field(Buckets::pack(&[1], LONGEST as u64 + 1, |_, _| true)), "bucket size");
    assert_eq!(field(Buckets::pack(&[u64::MAX, 1], 4, |_, _| true)), "tensors");
}
