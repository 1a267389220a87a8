//! x
use penstock_integration::control_plane::Cluster;
fn main() -> anyhow::Result<()> {
    let c = Cluster::start()?;
    std::fs::copy(c.kubeconfig(), "/tmp/pl/hand/kubeconfig")?;
    eprintln!("up");
    std::thread::sleep(std::time::Duration::from_secs(3600));
    Ok(())
}
