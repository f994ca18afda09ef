// A site for the length of one case.

/** Runs `body` on a site of this class, which is stopped in any case, and left where it is when something failed. */
export async function onSite(Site, options, body) {
  const site = await Site.start(options);
  let keep = true;
  try {
    const told = await body(site);
    site.mustRun();
    keep = false;
    return told;
  } catch (error) {
    error.message += ` (logs: ${site.folder})`;
    throw error;
  } finally {
    await site.stop({ keep });
  }
}
