/* version.h: the number of the contract between host and runbooks. It grows when a run
 * that an older host began could not be resumed faithfully; nothing else changes it. */
#ifndef VERSION_H
#define VERSION_H

#define LBRUN_INTERFACE 1

#endif
