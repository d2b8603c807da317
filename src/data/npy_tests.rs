//! Array files: whole ones are read back, broken ones are errors and never panics.

use super::*;

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn with_header(text: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    bytes
}

fn error(bytes: &[u8]) -> String {
    Npy::open(file(bytes).path()).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    for dtype in Dtype::ALL {
        for dims in [vec![], vec![0], vec![5], vec![2, 3], vec![1, 0, 4], vec![2, 1, 2, 1, 2]] {
            let shape = Shape::new(dims).unwrap();
            let bytes: Vec<u8> = (0..shape.bytes(dtype)).map(|i| i as u8).collect();
            write(&path, dtype, &shape, &bytes).unwrap();
            let npy = Npy::open(&path).unwrap();
            assert_eq!((npy.shape(), npy.bytes()), (&shape, &bytes[..]));
            for other in Dtype::ALL {
                let fp8 = |dtype| matches!(dtype, Dtype::F8e4m3 | Dtype::F8e5m2);
                let raw = other == Dtype::Bf16 && dtype == Dtype::U16 || fp8(other) && (fp8(dtype) || dtype == Dtype::U8);
                assert_eq!(npy.dtype_matches(other), other == dtype || raw, "{dtype} {other}");
            }
            assert!((std::fs::metadata(&path).unwrap().len() - bytes.len() as u64).is_multiple_of(64));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn headers_as_numpy_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let shape = Shape::new(vec![3]).unwrap();
    write(&path, Dtype::F32, &shape, &[0; 12]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(&bytes[10..70], b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }   ");
    assert_eq!(bytes.len(), 128 + 12);
}

#[test]
fn accepted_headers() {
    let npy = |text: &str| Npy::open(file(&with_header(text, &[0; 4])).path());
    for (text, dtype) in [
        ("{'descr': '|V2', 'fortran_order': False, 'shape': (2,), }", Dtype::Bf16),
        ("{'descr': '<V2', 'fortran_order': False, 'shape': (2,), }", Dtype::Bf16),
        ("{'shape':(2L,),\"descr\":\"<u2\",'fortran_order':True}\n", Dtype::Bf16),
        ("{'descr': '|V1', 'fortran_order': False, 'shape': (4,), }", Dtype::F8e4m3),
        ("{'descr': '<V1', 'fortran_order': False, 'shape': (4,), }", Dtype::F8e5m2),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (4,), }", Dtype::F8e5m2),
        ("{'descr': '|b1', 'fortran_order': False, 'shape': (2, 2)}", Dtype::Bool),
    ] {
        assert!(npy(text).unwrap().dtype_matches(dtype), "{text}");
    }
}

#[test]
fn broken_files_are_errors_that_name_value_and_limit() {
    assert_eq!(error(b""), "not a .npy file: it starts with nothing: it is empty, not with \\x93NUMPY");
    assert_eq!(error(b"PK\x03\x04...."), "not a .npy file: it starts with `PK\\x03\\x04..`, not with \\x93NUMPY");
    assert_eq!(error(b"\x93NUMPY"), "the header is cut short: it needs 10 bytes, the file has 6");
    assert_eq!(error(b"\x93NUMPY\x01\x00\xff"), "the header is cut short: it needs 10 bytes, the file has 9");
    assert_eq!(
        error(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"),
        "the header has 4294967295 bytes, an array's has a few hundred: the file is damaged, save the array again"
    );
    assert_eq!(error(b"\x93NUMPY\x02\x00\xff\xff\x00\x00"), "the header is cut short: it needs 65547 bytes, the file has 12");
    assert_eq!(error(b"\x93NUMPY\x09\x00\x00\x00"), "version 9.0 of the format is not known, 1.0, 2.0 and 3.0 are");
    for (text, message) in [
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }",
            "the header says shape [4, 3] of f32, 48 bytes, the file has 40 after its header",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), }",
            "the header says shape [3, 3] of f32, 36 bytes, the file has 40 after its header",
        ),
        (
            "{'descr': '>f4', 'fortran_order': False, 'shape': (10,), }",
            "dtype `>f4` is big-endian; save `np.ascontiguousarray(a.astype('<f4'))`",
        ),
        (
            "{'descr': '<f4', 'fortran_order': True, 'shape': (5, 2), }",
            "the array is in Fortran order; save `np.ascontiguousarray(a.astype('<f4'))`",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }",
            "shape [4294967296, 4294967296, 4294967296] has more than 2^40 elements, the most that a tensor may have",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
            "the header is not `{'descr': ..., 'fortran_order': ..., 'shape': ...}`: dimension 99999999999999999999 is beyond 2^64",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
            "the header is not `{'descr': ..., 'fortran_order': ..., 'shape': ...}`: a dimension expected, `-1,), }` found",
        ),
        (
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (10,), }",
            "the header is not `{'descr': ..., 'fortran_order': ..., 'shape': ...}`: a structured dtype",
        ),
        (
            "{'descr': '<f4', 'shape': (10,), }",
            "the header is not `{'descr': ..., 'fortran_order': ..., 'shape': ...}`: it lacks `fortran_order`",
        ),
        (
            "{'descr': '<c8', 'fortran_order': False, 'shape': (5,), }",
            "dtype `<c8` cannot be a tensor's; save the array as float64, float32, float16, an int or uint of 8 to 64 bits, bool, \
             or as bfloat16, float8_e4m3fn or float8_e5m2 of ml_dtypes",
        ),
    ] {
        assert_eq!(error(&with_header(text, &[0; 40])), message);
    }
}

#[test]
fn no_cut_and_no_changed_byte_makes_it_panic() {
    let whole = with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }", &[7; 8]);
    for len in 0..whole.len() {
        assert!(parse(&whole[..len]).is_err(), "{len}");
    }
    for at in 0..whole.len() {
        for byte in 0..=u8::MAX {
            let mut changed = whole.clone();
            changed[at] = byte;
            let _ = parse(&changed);
        }
    }
    assert!(Npy::open("no/such/file.npy").is_err());
    assert!(Npy::open(".").is_err());
}

#[test]
fn wrong_number_of_bytes_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let shape = Shape::new(vec![3]).unwrap();
    let e = write(&path, Dtype::F32, &shape, &[0; 8]).unwrap_err();
    assert_eq!(e.to_string(), "shape [3] of f32 needs 12 bytes, not 8");
    assert!(!path.exists());
}
