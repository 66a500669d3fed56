//! A private network of pods: a switch, and a link to each pod that a test can cut or slow down.
//!
//! The switch and every pod have a network namespace. It has no name and exists as long as a process is in it: a holder that
//! ends with the test.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The bridge in the namespace of the switch.
const BRIDGE: &str = "pods";
/// Address of the switch, from which the test sends requests to pods.
const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);
/// Number of bits that the addresses of switch and pods share.
const PREFIX: u8 = 16;
/// How long a request may take to connect, and to receive each part of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a new namespace may take.
const NAMESPACE_TIMEOUT: Duration = Duration::from_secs(10);

/// A network namespace, and the process that keeps it.
#[derive(Debug)]
struct Namespace(Child);

impl Namespace {
    fn create() -> Self {
        let mut holder = Command::new("unshare");
        // cat exits at the end of its input: when the test process exits, however it does.
        holder.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let namespace = Self(holder.spawn().unwrap());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let is_created = || fs::read_link(namespace.path()).is_ok_and(|path| path != own);
        let started = Instant::now();
        while !is_created() {
            assert!(
                started.elapsed() < NAMESPACE_TIMEOUT,
                "`unshare --net cat` created no network namespace"
            );
            thread::sleep(Duration::from_millis(2));
        }
        namespace.ip("link set lo up");
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// A command that runs in the namespace. Its process is that of the program.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    fn ip(&self, arguments: &str) {
        let output = self.command("ip").args(arguments.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The network of a job's pods.
#[derive(Debug)]
pub(crate) struct Network {
    switch: Namespace,
}

impl Network {
    /// Creates a network without pods.
    pub(crate) fn create() -> Arc<Self> {
        let switch = Namespace::create();
        switch.ip(&format!("link add name {BRIDGE} type bridge"));
        switch.ip(&format!("address add {SWITCH}/{PREFIX} dev {BRIDGE}"));
        switch.ip(&format!("link set {BRIDGE} up"));
        Arc::new(Self { switch })
    }

    /// Requests a document from a pod.
    pub(crate) fn get(&self, address: Ipv4Addr, port: u16, path: &str) -> io::Result<String> {
        let switch = self.switch.path();
        let request = move || -> io::Result<String> {
            // Only this thread enters the namespace, and it ends with the request.
            let namespace = File::open(switch)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), REQUEST_TIMEOUT)?;
            stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            match answer.split_once("\r\n\r\n") {
                Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
                _ => Err(io::Error::other(answer)),
            }
        };
        thread::scope(|scope| scope.spawn(request).join()).unwrap()
    }
}

/// The link of a pod: its end in the pod is `eth0`, with the address of the pod.
#[derive(Debug)]
pub(crate) struct Link {
    network: Arc<Network>,
    namespace: Namespace,
    /// Name of the other end, at the switch.
    port: String,
    address: Ipv4Addr,
}

impl Link {
    /// Connects a new pod. `port` is unique in the network.
    pub(crate) fn connect(network: &Arc<Network>, port: &str, address: Ipv4Addr) -> Self {
        let namespace = Namespace::create();
        let holder = namespace.0.id();
        let switch = &network.switch;
        // A pod that takes over an address also takes over its hardware address: peers remember both.
        let [a, b, c, d] = address.octets();
        let hardware = format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        switch
            .ip(&format!("link add name {port} type veth peer name eth0 address {hardware} netns {holder}"));
        switch.ip(&format!("link set {port} master {BRIDGE} up"));
        namespace.ip(&format!("address add {address}/{PREFIX} dev eth0"));
        namespace.ip("link set eth0 up");
        Self { network: Arc::clone(network), namespace, port: port.to_owned(), address }
    }

    /// Address of the pod.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs in the network namespace of the pod. Its process is that of the program.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Cuts the link: packets are lost in both directions, and neither end is notified.
    pub(crate) fn cut(&self) {
        self.network.switch.ip(&format!("link set {} nomaster", self.port));
    }

    /// Heals the link.
    pub(crate) fn heal(&self) {
        self.network.switch.ip(&format!("link set {} master {BRIDGE}", self.port));
    }

    /// Slows down what the pod receives by a queueing discipline, for example `tbf rate 20mbit burst 32kb latency 200ms`.
    /// Returns the error if `tc` or the kernel does not have it.
    pub(crate) fn slow_down(&self, discipline: &str) -> Result<(), String> {
        let mut command = self.network.switch.command("tc");
        command.args(["qdisc", "add", "dev", &self.port, "root"]).args(discipline.split_whitespace());
        let output = command.output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// Ends [`slow_down`](Self::slow_down).
    pub(crate) fn speed_up(&self) {
        let mut command = self.network.switch.command("tc");
        command.args(["qdisc", "del", "dev", &self.port, "root"]);
        assert!(command.status().unwrap().success());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The end in the pod disappears with it, before another pod has the same address.
        let _ = self.network.switch.command("ip").args(["link", "delete", &self.port]).output();
    }
}
