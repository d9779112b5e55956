//! A real Apache Kafka for tests, benches and campaigns: installed once from Maven's artifacts,
//! started as one combined broker and controller on loopback, thrown away with its data.
//! A guard ([`crate::guard`]) sees to it that it never outlives us.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::guard::{Guarded, free_ports, remove};
use crate::maven;
use crate::programs;
use crate::workspace::{self, Fault};

const KAFKA_VERSION: &str = "4.3.1";
const LOG4J_VERSION: &str = "2.25.4";
/// Base64 of sixteen bytes, as Kafka wants it; every test cluster may bear the same one.
const CLUSTER_ID: &str = "ZXZlcm1pbGwtdGVzdHMtMQ";
/// Who may log in, wherever a password is asked for; also the password of the broker's keys.
const USER: &str = "ada";
const PASSWORD: &str = "not-a-secret";
/// The broker's keys and its certificate, in its folder.
const KEYS: &str = "broker.p12";
const AUTHORITY: &str = "broker.pem";
const HEAP_MB_MAX: u32 = 512;
const START_SECONDS_MAX: u64 = 120;
const PROBE_MS: u64 = 100;
/// Free ports are found by binding and letting go, so another process may take one in between.
const START_ATTEMPTS_MAX: u32 = 3;

/// The jars on this machine.
pub(crate) struct Installed {
    java: PathBuf,
    keytool: PathBuf,
    jars: PathBuf,
}

/// Downloads the broker unless the cache has it.
pub(crate) fn install() -> Result<Installed, Fault> {
    let java = programs::require(&programs::JAVA)?;
    let keytool = programs::require(&programs::KEYTOOL)?;
    // The broker's own pom leaves the log binding to the distribution, so it is named here.
    let wanted = [
        ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        (
            "org.apache.logging.log4j",
            "log4j-slf4j-impl",
            LOG4J_VERSION,
        ),
    ];
    let jars = maven::jars(&format!("kafka/{KAFKA_VERSION}"), &wanted)?;
    Ok(Installed {
        java,
        keytool,
        jars,
    })
}

/// A running broker. Dropping it stops it and removes its data.
pub(crate) struct Broker {
    jvm: Guarded,
    ports: Ports,
}

/// Where the listeners are.
#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    controller: u16,
    /// TLS.
    tls: u16,
    /// TLS and a password.
    sasl: u16,
}

impl Broker {
    /// Starts a broker with empty storage and returns once it answers as a registered broker.
    /// Without a port, a free one is taken.
    pub(crate) fn start(installed: &Installed, port: Option<u16>) -> Result<Self, Fault> {
        let mut fault = Fault::new();
        for _ in 0..START_ATTEMPTS_MAX {
            match Self::start_once(installed, port) {
                Ok(broker) => return Ok(broker),
                Err(why) => fault = why,
            }
        }
        Err(fault)
    }

    fn start_once(installed: &Installed, port: Option<u16>) -> Result<Self, Fault> {
        let [free, controller, tls, sasl] = free_ports()?;
        let ports = Ports {
            plain: port.unwrap_or(free),
            controller,
            tls,
            sasl,
        };
        let (process, plain) = (process::id(), ports.plain);
        let folder = env::temp_dir().join(format!("evermill-kafka-{process}-{plain}"));
        create(&folder)?;
        let properties = server_properties(&folder, ports);
        let spawned = write(&folder.join("server.properties"), &properties)
            .and_then(|()| certify(installed, &folder))
            .and_then(|()| write(&folder.join("log4j2.properties"), LOG_PROPERTIES))
            .and_then(|()| format_storage(installed, &folder))
            .and_then(|()| spawn(installed, &folder));
        let jvm = spawned.inspect_err(|_| remove(&folder))?;
        let mut broker = Self { jvm, ports };
        broker.wait_until_it_answers()?;
        Ok(broker)
    }

    /// `127.0.0.1:PORT`, fit for `bootstrap.servers`.
    pub(crate) fn address(&self) -> String {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.plain)).to_string()
    }

    /// What tests of encrypted connections are told, as variables of their environment. The
    /// certificate is made out to `localhost`, and to nothing else.
    pub(crate) fn secured(&self) -> [(&'static str, String); 3] {
        let at = |port| format!("localhost:{port}");
        let authority = self.jvm.folder().join(AUTHORITY);
        [
            ("EVERMILL_TEST_KAFKA_TLS", at(self.ports.tls)),
            ("EVERMILL_TEST_KAFKA_SASL", at(self.ports.sasl)),
            ("EVERMILL_TEST_KAFKA_CA", authority.display().to_string()),
        ]
    }

    /// What the broker wrote to its log: warnings and errors.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.jvm.folder().join("broker.log")).unwrap_or_default()
    }

    /// Waits until the broker ends by itself.
    pub(crate) fn wait(&mut self) -> Result<(), Fault> {
        let status = self
            .jvm
            .server
            .wait()
            .map_err(|error| format!("broker: {error}"))?;
        Err(format!("the broker ended with {status}\n{}", self.log()))
    }

    fn wait_until_it_answers(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while !is_registered(self.ports.plain) {
            if let Ok(Some(status)) = self.jvm.server.try_wait() {
                return Err(format!("the broker ended with {status}\n{}", self.log()));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "no answer from the broker in {START_SECONDS_MAX} s\n{}",
                    self.log()
                ));
            }
            thread::sleep(Duration::from_millis(PROBE_MS));
        }
        Ok(())
    }
}

fn spawn(installed: &Installed, folder: &Path) -> Result<Guarded, Fault> {
    let fault = |error| format!("the broker cannot be started: {error}");
    let log = File::create(folder.join("broker.log")).map_err(fault)?;
    let mut jvm = java(installed, folder);
    jvm.args([
        &format!("-Xmx{HEAP_MB_MAX}m"),
        "-XX:+ExitOnOutOfMemoryError",
        "kafka.Kafka",
    ])
    .arg(folder.join("server.properties"))
    .stdin(Stdio::null())
    .stdout(log.try_clone().map_err(fault)?)
    .stderr(log);
    Guarded::spawn(&mut jvm, folder).map_err(fault)
}

fn format_storage(installed: &Installed, folder: &Path) -> Result<(), Fault> {
    let mut command = java(installed, folder);
    command.args([
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",
        "kafka.tools.StorageTool",
        "format",
    ]);
    command.args(["--standalone", "--cluster-id", CLUSTER_ID]);
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let user = format!("{mechanism}=[name={USER},password={PASSWORD}]");
        command.args(["--add-scram", &user]);
    }
    command.arg("--config");
    workspace::output(command.arg(folder.join("server.properties"))).map(drop)
}

/// A key of the broker's own, certified by itself, and the certificate for whoever connects.
fn certify(installed: &Installed, folder: &Path) -> Result<(), Fault> {
    let keytool = |arguments: &[&str]| {
        let mut command = Command::new(&installed.keytool);
        command.args(arguments).arg("-keystore");
        command.arg(folder.join(KEYS));
        command.args(["-storetype", "PKCS12", "-storepass", PASSWORD]);
        command.args(["-alias", "broker"]);
        workspace::output(&mut command).map(drop)
    };
    let authority = folder.join(AUTHORITY).display().to_string();
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-dname",
        "CN=localhost",
        "-ext",
        "san=dns:localhost",
        "-ext",
        "bc=ca:true",
        "-validity",
        "2",
    ])?;
    keytool(&["-exportcert", "-rfc", "-file", &authority])
}

fn java(installed: &Installed, folder: &Path) -> Command {
    let mut command = Command::new(&installed.java);
    let logging = folder.join("log4j2.properties");
    command.arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
    command.arg("-cp").arg(installed.jars.join("*"));
    command
}

/// One node in both roles. Internal topics are small and unreplicated; retention and cleaning run
/// every second, so that tests of gaps and compaction need not wait; nothing is created by chance.
fn server_properties(folder: &Path, ports: Ports) -> String {
    let (data, keys) = (folder.join("data"), folder.join(KEYS));
    let Ports {
        plain,
        controller,
        tls,
        sasl,
    } = ports;
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SSL://localhost:{tls},SASL_SSL://localhost:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PKCS12
ssl.keystore.location={keys}
ssl.keystore.password={PASSWORD}
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config={plain_login} required user_{USER}=\"{PASSWORD}\";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram_login} required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram_login} required;
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=1000
log.cleaner.backoff.ms=1000
log.cleaner.dedupe.buffer.size=16777216
",
        data = data.display(),
        keys = keys.display(),
        plain_login = "org.apache.kafka.common.security.plain.PlainLoginModule",
        scram_login = "org.apache.kafka.common.security.scram.ScramLoginModule",
    )
}

const LOG_PROPERTIES: &str = "status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
";

/// Asks for the cluster's metadata; true once the broker lists itself, which it does only when
/// the controller lets it serve.
fn is_registered(port: u16) -> bool {
    brokers_listed(port).is_ok_and(|brokers| brokers > 0)
}

/// One Metadata request, version 1, for no topic. Shapes: the Kafka protocol guide, "Metadata API".
fn brokers_listed(port: u16) -> std::io::Result<i32> {
    const REQUEST: [u8; 18] = [
        0, 0, 0, 14, // length of what follows
        0, 3, // API key: Metadata
        0, 1, // version
        0, 0, 0, 1, // correlation id
        0xFF, 0xFF, // no client id
        0, 0, 0, 0, // no topics
    ];
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&REQUEST)?;
    // Length and correlation id, then the array of brokers begins with its count.
    let mut answer = [0_u8; 12];
    stream.read_exact(&mut answer)?;
    Ok(i32::from_be_bytes([
        answer[8], answer[9], answer[10], answer[11],
    ]))
}

pub(crate) fn create(folder: &Path) -> Result<(), Fault> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Fault> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
