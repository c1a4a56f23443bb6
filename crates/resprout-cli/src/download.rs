//! Files from the network: resumed where they broke off, and checked before they get their name.

use anyhow::Context;
use resprout::progress::Progress;
use resprout::table::Entry;
use resprout::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A file of a dataset.
pub struct Remote {
    folder: &'static str,
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

const fn remote(folder: &'static str, name: &'static str, bytes: u64, sha256: &'static str) -> Remote {
    Remote { folder, name, bytes, sha256 }
}

const MNIST: &str = "https://storage.googleapis.com/cvdf-datasets/mnist/";
const FASHION: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/";
const CIFAR: &str = "https://www.cs.toronto.edu/~kriz/";
const IMAGENETTE: &str = "https://s3.amazonaws.com/fast-ai-imageclas/";

/// All datasets that can be downloaded.
pub static DOWNLOADS: &[Entry<&[Remote]>] = &[
    Entry {
        name: "mnist",
        about: "handwritten digits, 12 MB",
        paper: "LeCun, Cortes, Burges, The MNIST database; copy at storage.googleapis.com/cvdf-datasets",
        options: &[],
        build: &[
            remote(
                MNIST,
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            remote(
                MNIST,
                "train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            remote(
                MNIST,
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            remote(MNIST, "t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ],
    },
    Entry {
        name: "fashion-mnist",
        about: "articles of clothing in MNIST's format, 31 MB",
        paper: "Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017",
        options: &[],
        build: &[
            remote(
                FASHION,
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            remote(
                FASHION,
                "train-labels-idx1-ubyte.gz",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            remote(
                FASHION,
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            remote(
                FASHION,
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ],
    },
    Entry {
        name: "cifar-10",
        about: "colour images of 32x32 in 10 classes, 170 MB",
        paper: "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        options: &[],
        build: &[remote(
            CIFAR,
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        )],
    },
    Entry {
        name: "cifar-100",
        about: "colour images of 32x32 in 100 classes, 169 MB",
        paper: "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        options: &[],
        build: &[remote(
            CIFAR,
            "cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        )],
    },
    Entry {
        name: "imagenette",
        about: "ten classes of ImageNet, shorter side 320 pixels, 342 MB",
        paper: "Howard, Imagenette, 2019",
        options: &[],
        build: &[remote(
            IMAGENETTE,
            "imagenette2-320.tgz",
            341_553_947,
            "5020a9130cea0348272823cb12d2db7e981c6f2afa3dce71ccd5b8013005c55e",
        )],
    },
];

/// Brings a file into a folder and returns its path. A download that broke off goes on where it was.
pub fn fetch(file: &Remote, folder: &Path, mirror: Option<&str>, progress: &dyn Progress) -> anyhow::Result<PathBuf> {
    let path = folder.join(file.name);
    if path.is_file() {
        check(file, &path, &hash(&path)?)?;
        return Ok(path);
    }
    let part = folder.join(format!("{}.part", file.name));
    let url = match mirror {
        Some(mirror) => format!("{}/{}", mirror.trim_end_matches('/'), file.name),
        None => format!("{}{}", file.folder, file.name),
    };
    download(file, &url, &part, progress).with_context(|| url.clone())?;
    let found = hash(&part)?;
    if let Err(error) = check(file, Path::new(&url), &found) {
        // What is wrong cannot be continued.
        let _ = std::fs::remove_file(&part);
        return Err(error.into());
    }
    std::fs::rename(&part, &path).map_err(|e| Error::io(&path, e))?;
    Ok(path)
}

fn download(file: &Remote, url: &str, part: &Path, progress: &dyn Progress) -> anyhow::Result<()> {
    let mut have = std::fs::metadata(part).map_or(0, |meta| meta.len());
    if have == file.bytes {
        return Ok(());
    }
    if have > file.bytes {
        // It cannot be the beginning of the file: begin again.
        std::fs::remove_file(part)?;
        have = 0;
    }
    let mut request = ureq::get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call()?;
    // A server that knows no ranges sends everything again.
    let goes_on = response.status() == 206;
    let mut options = OpenOptions::new();
    options.create(true).write(true);
    let mut out = if goes_on { options.append(true) } else { options.truncate(true) }.open(part)?;
    progress.begin(file.name, file.bytes);
    let mut done = if goes_on { have } else { 0 };
    progress.advance(done);
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        progress.check()?;
        let read = body.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        done += read as u64;
        anyhow::ensure!(done <= file.bytes, "sends more than the {} bytes that the file has", file.bytes);
        out.write_all(&buffer[..read])?;
        progress.advance(read as u64);
    }
    progress.end();
    out.sync_all()?;
    anyhow::ensure!(done == file.bytes, "broke off after {done} of {} bytes; the same command goes on from there", file.bytes);
    Ok(())
}

fn hash(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn check(file: &Remote, place: &Path, found: &str) -> Result<()> {
    if found == file.sha256 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Data, format!("{}: its sha256 is {found}, {} is expected", place.display(), file.sha256)))
}

/// Unpacks a .tar.gz beside it. Entries that would lie outside of the folder are left out by the reader.
pub fn unpack(path: &Path, folder: &Path) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(folder).map_err(|e| Error::io(path, e).at("unpack"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use resprout::progress::Quiet;
    use std::io::BufRead;
    use std::net::TcpListener;

    const CONTENT: &[u8] = b"0123456789";
    /// sha256 of "0123456789".
    const FILE: Remote = remote("", "x.bin", 10, "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882");

    /// Answers requests one after the other: how much of what is left is sent, and whether ranges are
    /// known. Returns the address and the requests.
    fn server(answers: Vec<(usize, bool)>, content: &'static [u8]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for (send, ranges) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
                let mut start = 0;
                let mut request = String::new();
                for line in lines.by_ref().map(|line| line.unwrap().to_lowercase()).take_while(|line| !line.is_empty()) {
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        start = range.trim_end_matches('-').parse().unwrap();
                    }
                    request = request + &line + ";";
                }
                requests.push(request);
                let start = if ranges { start } else { 0 };
                let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
                let rest = &content[start..];
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len()).unwrap();
                stream.write_all(&rest[..send.min(rest.len())]).unwrap();
            }
            requests
        });
        (address, thread)
    }

    #[test]
    fn a_broken_download_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (address, thread) = server(vec![(4, true), (10, true)], CONTENT);
        let error = format!("{:#}", fetch(&FILE, folder.path(), Some(&address), &Quiet).unwrap_err());
        assert!(error.contains("x.bin"), "{error}");
        assert!(!folder.path().join("x.bin").exists());
        let path = fetch(&FILE, folder.path(), Some(&address), &Quiet).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), CONTENT);
        let requests = thread.join().unwrap();
        assert!(!requests[0].contains("range") && requests[1].contains("range: bytes=4-"), "{requests:?}");
        // What is there is not downloaded again: no server listens any more.
        fetch(&FILE, folder.path(), Some(&address), &Quiet).unwrap();
    }

    #[test]
    fn a_server_without_ranges_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.bin.part"), b"012").unwrap();
        let (address, thread) = server(vec![(10, false)], CONTENT);
        fetch(&FILE, folder.path(), Some(&address), &Quiet).unwrap();
        thread.join().unwrap();
        assert_eq!(std::fs::read(folder.path().join("x.bin")).unwrap(), CONTENT);
    }

    #[test]
    fn too_long_a_beginning_is_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.bin.part"), b"0123456789 and more").unwrap();
        let (address, thread) = server(vec![(10, true)], CONTENT);
        fetch(&FILE, folder.path(), Some(&address), &Quiet).unwrap();
        assert!(!thread.join().unwrap()[0].contains("range"));
        assert_eq!(std::fs::read(folder.path().join("x.bin")).unwrap(), CONTENT);
    }

    #[test]
    fn other_contents_are_refused_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        for (content, what) in [(b"012345678X" as &'static [u8], "sha256"), (b"0123456789 and more", "more than")] {
            let (address, thread) = server(vec![(100, true)], content);
            let error = format!("{:#}", fetch(&FILE, folder.path(), Some(&address), &Quiet).unwrap_err());
            thread.join().unwrap();
            assert!(error.contains(what) && error.contains("x.bin"), "{error}");
            assert!(!folder.path().join("x.bin").exists());
        }
    }
}
