//! The planes of one channel in a batch of images.

/// `data: [N, C, plane]` as `C` lists of `N` planes.
pub(super) fn by_channel_mut(data: &mut [f32], channels: usize, plane: usize) -> Vec<Vec<&mut [f32]>> {
    let mut lists: Vec<Vec<&mut [f32]>> = (0..channels).map(|_| Vec::new()).collect();
    data.chunks_exact_mut(plane).enumerate().for_each(|(i, plane)| lists[i % channels].push(plane));
    lists
}

/// The planes of one channel of `data: [N, C, plane]`.
pub(super) fn of_channel(data: &[f32], channels: usize, channel: usize, plane: usize) -> impl Iterator<Item = &[f32]> {
    data.chunks_exact(plane).skip(channel).step_by(channels)
}
