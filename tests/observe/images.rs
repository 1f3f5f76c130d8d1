//! Pictures, arrays and IDX files as images, and images as pictures.

use super::assert_line;
use diem::Result;
use diem::backend::Shape;
use diem::data::{Array, Data, Samples, images, npy, picture};
use flate2::write::GzEncoder;
use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use std::fs;
use std::io::Write;
use std::path::Path;

/// All images.
pub fn read(path: &Path) -> Result<Samples<f32>> {
    images::read(path, images::Selection::default())
}

#[test]
fn bytes_and_values() {
    assert_eq!((images::from_byte(0), images::from_byte(128), images::from_byte(255)), (-2.0, 0.0, 1.984375));
    for v in 0..=255 {
        assert_eq!(images::to_byte(images::from_byte(v)), v);
    }
    assert_eq!([-9.0, 9.0, f32::INFINITY].map(images::to_byte), [0, 255, 255]);
}

#[test]
fn folders_are_read_in_order_of_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let color = |v: u8| RgbImage::from_fn(5, 3, |x, y| Rgb([v, x as u8, y as u8]));
    color(20).save(at("b.PNG")).unwrap();
    color(10).save(at("a.png")).unwrap();
    fs::write(at("notes.txt"), "not an image").unwrap();
    let x = read(dir.path()).unwrap();
    assert_eq!(
        (x.shape, x.row(0)[0], x.row(1)[0]),
        (Shape::new(2, 3, 5, 3), images::from_byte(10), images::from_byte(20))
    );
    assert_eq!(x.row(1)[3..6], [20, 1, 0].map(images::from_byte));
    assert_eq!(images::read(dir.path(), images::Selection { count: Some(1), size: None }).unwrap().shape.n, 1);

    GrayImage::from_pixel(5, 3, Luma([7])).save(at("c.jpg")).unwrap();
    assert_line(
        read(dir.path()),
        &["c.jpg: expected height x width x channels 3 x 5 x 3 as in ", "a.png", "found 3 x 5 x 1"],
    );
    fs::remove_file(at("c.jpg")).unwrap();
    color(1).save(at("c.jpg")).unwrap();
    RgbImage::new(9, 9).save(at("d.png")).unwrap();
    assert_line(read(dir.path()), &["d.png: expected height x width x channels", "found 9 x 9 x 3"]);
    let square = images::read(dir.path(), images::Selection { count: None, size: Some(4) }).unwrap();
    assert_eq!(square.shape, Shape::new(4, 4, 4, 3));

    fs::write(at("d.png"), "not a png").unwrap();
    assert_line(read(dir.path()), &["d.png: expected a PNG or JPEG picture"]);
    RgbaImage::from_pixel(5, 3, Rgba([1, 2, 3, 200])).save(at("d.png")).unwrap();
    assert_line(read(dir.path()), &["d.png: expected a picture without transparency"]);
    RgbaImage::from_pixel(5, 3, Rgba([1, 2, 3, 255])).save(at("d.png")).unwrap();
    assert_eq!(read(dir.path()).unwrap().row(3)[..3], [1, 2, 3].map(images::from_byte));
}

/// A photograph taken with the camera on its side: EXIF says 6, to be turned clockwise.
#[test]
fn photographs_are_turned_as_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("side.jpg");
    GrayImage::from_fn(16, 8, |x, _| Luma([if x < 8 { 30 } else { 220 }])).save(&path).unwrap();
    assert_eq!(read(&path).unwrap().shape, Shape::new(1, 8, 16, 1));
    // TIFF, little-endian, with one entry: Orientation (0x112), one SHORT, 6
    let tiff = [&b"II*\0"[..], &[8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]].concat();
    let exif = [&[0xff, 0xe1, 0, 8 + tiff.len() as u8], &b"Exif\0\0"[..], &tiff].concat();
    let plain = fs::read(&path).unwrap();
    fs::write(&path, [&plain[..2], &exif, &plain[2..]].concat()).unwrap(); // after the start of the image
    let x = read(&path).unwrap();
    assert_eq!(x.shape, Shape::new(1, 16, 8, 1));
    // what was left is above; 8 x 8 blocks of one gray lose a level or two to quantisation
    assert!((x.data[0] - images::from_byte(30)).abs() < 0.05 && (x.data[127] - images::from_byte(220)).abs() < 0.05);
    fs::write(&path, [&plain[..2], &exif[..exif.len() - 14], &[0; 14], &plain[2..]].concat()).unwrap();
    assert_eq!(read(&path).unwrap().shape, Shape::new(1, 8, 16, 1), "EXIF data that say nothing");
}

/// What lies behind the images that are asked for is not even read.
#[test]
fn a_count_reads_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let first = |path: &Path, n: usize| images::read(path, images::Selection { count: Some(n), size: None });
    let path = dir.path().join("x.npy");
    npy::write(&path, &Array::f32(&[3, 1, 2], vec![0.0, 1.0, 2.0, -1.0, f32::NAN, 0.0])).unwrap();
    assert_eq!(first(&path, 2).unwrap(), Samples::new(Shape::new(2, 1, 2, 1), vec![0.0, 1.0, 2.0, -1.0]));
    assert_line(first(&path, 3), &["x.npy, image 2"]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_line(first(&path, 1), &["x.npy", "truncated"]);

    let path = dir.path().join("x-idx3-ubyte");
    let bytes: Vec<u8> = (0..60_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut gz = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&[&[0, 0, 8, 3, 0, 0, 0, 60, 0, 0, 0, 10, 0, 0, 0, 100][..], &bytes].concat()).unwrap();
    let gz = gz.finish().unwrap();
    fs::write(&path, &gz[..gz.len() / 2]).unwrap();
    let x = first(&path, 2).unwrap();
    assert_eq!((x.shape, x.data[1999]), (Shape::new(2, 10, 100, 1), images::from_byte(bytes[1999])));
    assert_line(first(&path, 60), &["idx3-ubyte", "truncated"]);
}

#[test]
fn arrays_and_idx_files_are_images_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    let write = |array: Array| npy::write(&path, &array).unwrap();
    write(Array::new(&[2, 2, 1], Data::U8(vec![0, 64, 128, 192])));
    assert_eq!(read(&path).unwrap(), Samples::new(Shape::new(2, 2, 1, 1), vec![-2.0, -1.0, 0.0, 1.0]));
    write(Array::new(&[1, 3], Data::F64(vec![-1.0, 0.5, 2.1])));
    assert_eq!(read(&path).unwrap(), Samples::new(Shape::rows(1, 3), vec![-1.0, 0.5, 2.1]));
    write(Array::f32(&[1, 1, 2], vec![0.0, 255.0]));
    assert_line(read(&path), &["x.npy: expected images in [-2, 2] (floats up to 4 in magnitude, or uint8), found 255"]);
    write(Array::f32(&[2, 1, 1], vec![0.0, f32::NAN]));
    assert_line(read(&path), &["non-finite value in ", "x.npy, image 1"]);
    write(Array::f32(&[4], vec![0.0; 4]));
    assert_line(read(&path), &["x.npy: expected shape (N, H, W, C), (N, H, W) or (N, D), found (4,)"]);
    write(Array::f32(&[0, 2, 2], vec![]));
    assert_line(read(&path), &["x.npy: expected at least one image, found none"]);

    let idx = |n: u8| [&[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 2, 0, 0, 0, 1][..], &[0, 64, 128, 192]].concat();
    let path = dir.path().join("t10k-images-idx3-ubyte");
    let expected = Samples::new(Shape::new(2, 2, 1, 1), vec![-2.0, -1.0, 0.0, 1.0]);
    fs::write(&path, idx(2)).unwrap();
    assert_eq!(read(&path).unwrap(), expected);
    let mut gz = GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&idx(2)).unwrap();
    let mut gz = gz.finish().unwrap();
    fs::write(&path, &gz).unwrap();
    assert_eq!(read(&path).unwrap(), expected);
    *gz.iter_mut().nth_back(5).unwrap() ^= 1; // of the sum
    fs::write(&path, &gz).unwrap();
    assert_line(read(&path), &["idx3-ubyte: expected intact data"]);
    fs::write(&path, idx(3)).unwrap();
    assert_line(read(&path), &["idx3-ubyte: expected a whole file, found a truncated one"]);
    fs::write(&path, idx(1)).unwrap();
    assert_line(read(&path), &["idx3-ubyte: expected 1 images of 2 x 1, found more"]);
    fs::write(&path, "something else altogether").unwrap();
    assert_line(read(&path), &["idx3-ubyte: expected a folder, .png", "found another file"]);
}

#[test]
fn tiles_show_what_they_should() {
    use picture::Tile;
    let image = Shape::new(1, 1, 2, 1);
    let x = [-2.0, 2.0];
    let rows = [
        vec![Tile::Image(&x), Tile::Observed(&x, &[0, 1])],
        vec![Tile::Magnitude(&x, 2.0), Tile::Image(&[f32::NAN, 0.0])],
    ];
    let grid = picture::grid(image, &rows);
    let pixel = |column: u32, row: u32, x: u32| grid.get_pixel(4 + column * 132 + x * 64, 4 + row * 68).0;
    assert_eq!(grid.dimensions(), (2 * 132 + 4, 2 * 68 + 4));
    assert_eq!((pixel(0, 0, 0), pixel(0, 0, 1)), ([0; 3], [255; 3]));
    assert!(pixel(1, 0, 0).iter().any(|v| *v != pixel(1, 0, 0)[0]), "what was not observed is no gray");
    assert_eq!(pixel(1, 0, 1), [255; 3]);
    assert_eq!((pixel(0, 1, 0), pixel(0, 1, 1)), ([0x44, 0x01, 0x54], [0xfd, 0xe7, 0x25]), "both ends of viridis");
    assert_eq!((pixel(1, 1, 0), pixel(1, 1, 1)), ([255, 0, 255], [128; 3]));
}
