//! Where the pixels of a value lie: in which vector and lane.

use super::arena::LANES;
use std::cmp::Reverse;
use std::ops::Range;

/// The fewest rows of a row partition.
const PARTITION_ROWS: usize = 2;

/// Vectors of a page. No prefetcher continues into the next page, which may belong to another thread.
pub(super) const PAGE: usize = 64;

/// How the pixels of images are distributed over lanes: each lane holds a patch of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct VectorLayout {
    /// Images in the lanes: 1, 2, 4, 8 or 16.
    pub images: usize,
    /// Patches of an image, down and across; `images * grid[0] * grid[1] = 16`.
    pub grid: [usize; 2],
    /// Height and width of a patch.
    pub patch: [usize; 2],
    /// Parts of the rows of a patch that lie apart in memory, one for each thread.
    pub row_partitions: usize,
}

/// A vector whose lanes are read from anywhere in a channel of another value.
pub(super) struct Gather {
    /// The vector, counted from the channel's first one.
    pub vector: u32,
    /// For each lane: the offset of its number, in floats from the other channel's first one. Lanes that are not read have the
    /// offset of one that is.
    pub from: [u32; LANES],
    /// A bit for each lane that is read, because its pixel lies inside of the image. The others become 0.
    pub read: u16,
}

/// A vector that holds lanes of another vector, or its own, with zeros outside of the image.
#[derive(Clone, Debug)]
pub(super) struct HaloCopy {
    /// The other vector, counted from its channel's first one.
    pub from: usize,
    /// This vector, counted alike.
    pub to: usize,
    /// For each lane: the lane of the other vector that it holds.
    pub lanes: [u32; LANES],
    /// As [`Gather::read`].
    pub read: u16,
}

impl Gather {
    fn new(vector: usize, from: [Option<usize>; LANES]) -> Gather {
        let first = from.iter().flatten().next().copied().unwrap_or(0);
        Gather { vector: vector as u32, from: from.map(|at| at.unwrap_or(first) as u32), read: mask(&from) }
    }
}

/// A bit for each lane that has an offset.
fn mask(from: &[Option<usize>; LANES]) -> u16 {
    (0..LANES).filter(|&lane| from[lane].is_some()).fold(0, |mask, lane| mask | 1 << lane)
}

impl VectorLayout {
    /// The layout for so many threads that wastes the fewest lanes on images of this size, and then has the smallest halo.
    pub fn best(images: usize, size: [usize; 2], threads: usize) -> VectorLayout {
        let all = VectorLayout::candidates(images, size, threads);
        all.min_by_key(|layout| layout.cost()).unwrap_or(VectorLayout { images, grid: [1, 1], patch: size, row_partitions: 1 })
    }

    /// A layout for every grid.
    pub fn candidates(images: usize, size: [usize; 2], threads: usize) -> impl Iterator<Item = VectorLayout> {
        let cells = LANES / images;
        (0..=cells.trailing_zeros()).map(move |shift| {
            let grid = [1 << shift, cells >> shift];
            let patch = [size[0].div_ceil(grid[0]).max(1), size[1].div_ceil(grid[1]).max(1)];
            VectorLayout { images, grid, patch, row_partitions: 1 }.with_patch(patch, threads)
        })
    }

    /// The same layout with patches of another size, for so many threads.
    pub fn with_patch(self, patch: [usize; 2], threads: usize) -> VectorLayout {
        VectorLayout { patch, row_partitions: if patch[0] >= PARTITION_ROWS * threads { threads } else { 1 }, ..self }
    }

    /// The first row of a row partition, or past the last one of the partition before it.
    pub fn first_row(&self, partition: usize) -> usize {
        (self.patch[0] * partition).div_ceil(self.row_partitions)
    }

    /// The rows of a row partition.
    pub fn rows(&self, partition: usize) -> Range<usize> {
        self.first_row(partition)..self.first_row(partition + 1)
    }

    /// What decides between layouts. Vectors per channel count most; height plus width stands for the halo and counts an eighth.
    /// Of equal layouts one with row partitions is better, then one whose largest partition is small: threads wait for it.
    pub fn cost(&self) -> (usize, Reverse<usize>, usize) {
        let [height, width] = self.patch;
        (8 * height * width + (height + width), Reverse(self.row_partitions), height.div_ceil(self.row_partitions) * width)
    }

    /// Vectors of a patch without halo.
    pub fn vectors(&self) -> usize {
        self.patch[0] * self.patch[1]
    }

    /// Image, and first row and column of a lane's patch.
    pub(super) fn origin(&self, lane: usize) -> (usize, [usize; 2]) {
        let cells = self.grid[0] * self.grid[1];
        let cell = lane % cells;
        (lane / cells, [cell / self.grid[1] * self.patch[0], cell % self.grid[1] * self.patch[1]])
    }

    /// The lane of a pixel, and its row and column within the patch.
    pub(super) fn place(&self, image: usize, pixel: [usize; 2]) -> (usize, [usize; 2]) {
        let cell = [pixel[0] / self.patch[0], pixel[1] / self.patch[1]];
        let lane = image * self.grid[0] * self.grid[1] + cell[0] * self.grid[1] + cell[1];
        (lane, [pixel[0] % self.patch[0], pixel[1] % self.patch[1]])
    }
}

/// The share of lanes that stay empty in a microbatch of 1, 2, 4, 8 or 16 images of this size.
pub fn wasted(images: usize, size: [usize; 2]) -> f64 {
    1.0 - (images * size[0] * size[1]) as f64 / (LANES * VectorLayout::best(images, size, 1).vectors()) as f64
}

/// A value's extent in vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    pub layout: VectorLayout,
    /// Of the image.
    pub size: [usize; 2],
    pub channels: usize,
    /// Halo vectors above and below, left and right of each row partition.
    pub halo: [usize; 2],
    /// Vectors from a row partition of a channel to the next. All values have the same distance, so that each thread has its own
    /// part of the memory.
    pub partition: usize,
    /// One, or as many as there are threads, each in the part of its thread. A value with several has one row partition.
    pub replicas: usize,
}

impl Extent {
    /// Vectors from one row of a patch to the next.
    pub fn row(&self) -> usize {
        self.layout.patch[1] + 2 * self.halo[1]
    }

    /// Vectors of a row partition of a channel with its halo.
    fn vectors(&self) -> usize {
        (self.layout.patch[0].div_ceil(self.layout.row_partitions) + 2 * self.halo[0]) * self.row()
    }

    /// Vectors from one channel to the next: odd, so that channels do not fall into the same sets of the cache.
    pub fn pitch(&self) -> usize {
        self.vectors() | 1
    }

    /// Whether each thread has its own part of it.
    pub fn is_parted(&self) -> bool {
        self.layout.row_partitions > 1 || self.replicas > 1
    }

    /// Vectors from a channel's first one to past its last one. Other channels lie between its row partitions.
    pub fn span(&self) -> usize {
        (self.layout.row_partitions - 1) * self.partition + self.vectors()
    }

    /// Vectors of a row partition of all channels.
    pub fn total(&self) -> usize {
        self.channels * self.pitch()
    }

    /// The vector of a pixel of the patch, in the row partition that it belongs to.
    pub fn vector(&self, y: usize, x: usize) -> usize {
        let partition = (0..self.layout.row_partitions).rfind(|&partition| self.layout.first_row(partition) <= y).unwrap_or(0);
        self.vector_of(partition, y as isize, x as isize)
    }

    /// The vector where a row partition has this pixel, which may be in its halo.
    pub fn vector_of(&self, partition: usize, y: isize, x: isize) -> usize {
        let [above, left] = self.halo.map(|halo| halo as isize);
        let y = y - self.layout.first_row(partition) as isize;
        partition * self.partition + (y + above) as usize * self.row() + (x + left) as usize
    }

    /// Vectors from the first pixel of the first row partition to this pixel of a partition.
    pub fn shift(&self, partition: usize, y: usize, x: usize) -> usize {
        partition * self.partition + (y - self.layout.first_row(partition)) * self.row() + x
    }

    /// Where a pixel lies, in floats from its channel's first vector.
    pub fn float(&self, image: usize, pixel: [usize; 2]) -> usize {
        let (lane, [y, x]) = self.layout.place(image, pixel);
        self.vector(y, x) * LANES + lane
    }

    /// Where a pixel lies in `[images, C, H, W]`, in floats from the first pixel of its channel in the first image.
    pub fn plain(&self) -> impl Fn(usize, [usize; 2]) -> usize {
        let (width, image_len) = (self.size[1], self.channels * self.size[0] * self.size[1]);
        move |image, [y, x]| image * image_len + y * width + x
    }

    /// A gather for every vector of each row partition with its halo. `source` says where a pixel of an image lies in the value that
    /// is read.
    pub fn gathers(&self, source: impl Fn(usize, [usize; 2]) -> usize) -> Vec<Vec<Gather>> {
        self.gathers_within(self.halo, source)
    }

    /// The same without halos.
    pub fn inner_gathers(&self, source: impl Fn(usize, [usize; 2]) -> usize) -> Vec<Gather> {
        self.gathers_within([0, 0], source).into_iter().flatten().collect()
    }

    fn gathers_within(&self, halo: [usize; 2], source: impl Fn(usize, [usize; 2]) -> usize) -> Vec<Vec<Gather>> {
        let gather = |partition: usize, (y, x)| Gather::new(self.vector_of(partition, y, x), self.lanes(y, x, &source));
        let partition = |partition: usize| self.pixels(partition, halo).map(|pixel| gather(partition, pixel)).collect();
        (0..self.layout.row_partitions).map(partition).collect()
    }

    /// The pixels of a row partition with so much of its halo.
    fn pixels(&self, partition: usize, halo: [usize; 2]) -> impl Iterator<Item = (isize, isize)> + use<> {
        let [above, left] = halo.map(|halo| halo as isize);
        let (rows, width) = (self.layout.rows(partition), self.layout.patch[1] as isize);
        let rows = rows.start as isize - above..rows.end as isize + above;
        rows.flat_map(move |y| (-left..width + left).map(move |x| (y, x)))
    }

    /// For each lane of a vector: the offset of its pixel, if that lies inside of the image.
    fn lanes(&self, y: isize, x: isize, offset: impl Fn(usize, [usize; 2]) -> usize) -> [Option<usize>; LANES] {
        std::array::from_fn(|lane| {
            let (image, [top, left]) = self.layout.origin(lane);
            let (row, column) = (top as isize + y, left as isize + x);
            let inside = row >= 0 && column >= 0 && (row as usize) < self.size[0] && (column as usize) < self.size[1];
            inside.then(|| offset(image, [row as usize, column as usize]))
        })
    }

    /// The vectors of each row partition that must be written after the patches: the halo, and those with lanes outside of the
    /// image.
    pub fn halo_copies(&self) -> Vec<Vec<HaloCopy>> {
        let needed = |copy: &HaloCopy| copy.from != copy.to || copy.read != u16::MAX;
        self.vectors_from(self).into_iter().map(|partition| partition.into_iter().filter(needed).collect()).collect()
    }

    /// For every vector of each row partition with its halo: which lanes of `source` it holds, a value of the same layout.
    /// All patches have one size, so the neighbours of a vector's lanes lie in one vector too.
    pub fn vectors_from(&self, source: &Extent) -> Vec<Vec<HaloCopy>> {
        let [height, width] = self.layout.patch.map(|size| size as isize);
        let copy = |partition: usize, (y, x): (isize, isize)| {
            let inside = self.lanes(y, x, |image, pixel| self.layout.place(image, pixel).0);
            let lanes = inside.map(|lane| lane.unwrap_or(0) as u32);
            let from = source.vector(y.rem_euclid(height) as usize, x.rem_euclid(width) as usize);
            let to = self.vector_of(partition, y, x);
            HaloCopy { from, to, lanes, read: mask(&inside) }
        };
        let partition = |partition: usize| self.pixels(partition, self.halo).map(|pixel| copy(partition, pixel)).collect();
        (0..self.layout.row_partitions).map(partition).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every vector of every row partition holds its own lanes, or those of the vector where all its lanes find their pixels.
    fn halo_copies_equal_gathers(extent: &Extent) {
        let gathers = extent.gathers(|image, pixel| extent.float(image, pixel));
        for (gathers, halo_copies) in gathers.iter().zip(extent.halo_copies()) {
            for gather in gathers {
                let vector = gather.vector as usize;
                let own = HaloCopy { from: vector, to: vector, lanes: std::array::from_fn(|lane| lane as u32), read: u16::MAX };
                let copy = halo_copies.iter().find(|copy| copy.to == vector).unwrap_or(&own);
                assert_eq!(gather.read, copy.read);
                let found = |lane: &usize| gather.from[*lane] as usize == copy.from * LANES + copy.lanes[*lane] as usize;
                assert!((0..LANES).filter(|lane| gather.read >> lane & 1 == 1).all(|lane| found(&lane)), "vector {vector}");
            }
        }
    }

    #[test]
    fn every_pixel_has_a_place_and_halos_show_the_neighbours() {
        for (images, size) in [(1, [14, 14]), (1, [30, 23]), (1, [7, 5]), (2, [9, 4]), (4, [3, 3]), (16, [2, 3])] {
            for layout in VectorLayout::candidates(images, size, 2) {
                let extent = Extent { layout, size, channels: 1, halo: [1, 1], partition: 1000, replicas: 1 };
                let mut seen = std::collections::HashSet::new();
                for image in 0..images {
                    for pixel in (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| [y, x])) {
                        let (lane, _) = layout.place(image, pixel);
                        let (back, [top, left]) = layout.origin(lane);
                        assert!(back == image && top <= pixel[0] && left <= pixel[1]);
                        assert!(seen.insert(extent.float(image, pixel)));
                    }
                }
                halo_copies_equal_gathers(&extent);
            }
        }
        assert_eq!(VectorLayout::best(1, [56, 56], 2).grid, [4, 4]);
        assert_eq!(VectorLayout::best(1, [14, 14], 2).vectors(), 14);
        assert_eq!(VectorLayout::best(16, [7, 7], 2).vectors(), 49);
        // As many vectors as seven rows of four, but even row partitions; and a layout without partitions is worse.
        assert_eq!(VectorLayout::best(8, [7, 7], 2).patch, [4, 7]);
        assert_eq!(VectorLayout::best(1, [14, 14], 2).patch, [7, 2]);
    }

    /// The picture of `docs/engine.md`: four images of 4x4 pixels `a` to `p` share each vector. Shows the lanes of image 0.
    #[test]
    fn the_picture_of_four_images_of_4x4_is_the_layout() {
        let layout = VectorLayout::best(4, [4, 4], 1);
        assert_eq!((layout.grid, layout.patch), ([2, 2], [2, 2]));
        let extent = Extent { layout, size: [4, 4], channels: 1, halo: [1, 1], partition: 0, replicas: 1 };
        assert_eq!((extent.row(), extent.vectors(), extent.pitch()), (4, 16, 17));
        // A pixel's number in the image is its letter; the other images follow.
        let gathers = extent.gathers(|image, [y, x]| 16 * image + 4 * y + x);
        let lane = |gather: &Gather, lane: usize| match gather.read >> lane & 1 {
            1 => char::from(b'a' + gather.from[lane] as u8),
            _ => '0',
        };
        let vector = |gather: &Gather| (0..4).map(|of| lane(gather, of).to_string()).collect::<Vec<_>>().join(" ");
        let rows = gathers[0].chunks(4).map(|row| row.iter().map(vector).collect::<Vec<_>>().join("    "));
        let picture = [
            "0 0 0 f    0 0 e g    0 0 f h    0 0 g 0",
            "0 b 0 j    a c i k    b d j l    c 0 k 0",
            "0 f 0 n    e g m o    f h n p    g 0 o 0",
            "0 j 0 0    i k 0 0    j l 0 0    k 0 0 0",
        ];
        assert!(rows.eq(picture));
        assert!(gathers[0].iter().map(|gather| gather.vector).eq(0..16));
    }
}
